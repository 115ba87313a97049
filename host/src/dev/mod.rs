pub mod languages;
pub mod watch;
