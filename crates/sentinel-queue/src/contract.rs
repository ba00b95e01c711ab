//! The suite that every queue must pass.
