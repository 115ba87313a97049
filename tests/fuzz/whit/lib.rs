//! Those modules of the host that take apart what strangers send; see Cargo.toml.

#[path = "../../../host/src/capabilities"]
pub mod capabilities {
    pub mod pipe;

    pub mod http {
        pub mod address;
    }
}
#[path = "../../../host/src/ingress"]
pub mod ingress {
    pub mod framing;
}
#[path = "../../../host/src/invoke"]
pub mod invoke {
    pub mod cgi;
}
#[path = "../../../host/src/model/mod.rs"]
pub mod model;
#[path = "../../../host/src/router.rs"]
pub mod router;
