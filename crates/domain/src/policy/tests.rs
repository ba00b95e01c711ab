mod naive;
mod parsing;
mod properties;
mod questions;
