//! Whether a remembered document may still be served: a pure function of memory and now.
