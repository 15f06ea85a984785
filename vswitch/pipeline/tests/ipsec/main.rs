//! The tunnel under IPsec, between two switches.

mod attacks;
mod carried;
mod life;
mod site;
