//! The CDN edge.
