//! Events over HTTP, authenticated per namespace, into the queue.
