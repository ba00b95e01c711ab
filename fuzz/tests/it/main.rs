//! Every target on its corpus, and on mutations of it.

#[cfg(test)]
mod mutate;
#[cfg(test)]
mod replay;
