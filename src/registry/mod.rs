//! A client of the OCI distribution protocol: authentication, manifests, paging.
