//! How smooth the joins of chunks are.
