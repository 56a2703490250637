//! A whole node: up, work, stop.
