//! The store of events and the questions it answers: the contract, an in-memory reference, Parquet with DataFusion.
