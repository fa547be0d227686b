//! Requests made to be read in two ways, and floods that no place or time limit of [`super::proxy_bounds`] ends: what is answered, what
//! the gateway sees of them, and that the next client is served.

mod flood;
mod frames;
mod smuggling;
