//! How long a request to a registry may take, and how often it is tried.

use std::time::Duration;

/// Deadlines and counts of one client. The defaults are the constants below; tests shorten them.
#[derive(Debug, Clone)]
pub(crate) struct ClientLimits {
    /// Until the TCP connection and TLS are set up.
    pub(crate) connect: Duration,
    /// From sending a request to the last byte of the response's head.
    pub(crate) headers: Duration,
    /// From sending a `_catalog` request to the last byte of the response's head.
    pub(crate) catalog_headers: Duration,
    /// Between two pieces of a body.
    pub(crate) idle: Duration,
    /// For one try as a whole, redirects included.
    pub(crate) total: Duration,
    /// Tries per request, the first included.
    pub(crate) attempts: u32,
    /// How many of the tries may end in silence: without a whole head within the deadline.
    pub(crate) silent: u32,
    /// The base from which the waits between tries grow.
    pub(crate) backoff: Duration,
    /// The base from which the pauses after a 429 without `Retry-After` grow.
    pub(crate) unasked_pause: Duration,
    /// The longest pause a request waits out; for a longer one the request fails with `RateLimited`.
    pub(crate) short_wait: Duration,
    /// Most pages per listing.
    pub(crate) pages: usize,
    /// Most names per listing.
    pub(crate) names: usize,
    /// Most redirects followed for manifests and blobs.
    pub(crate) redirects: usize,
}

/// Long enough for a distant registry, short enough that a firewall that drops packets is noticed.
const CONNECT: Duration = Duration::from_secs(10);
/// Registries answer in milliseconds; a cold cache behind object storage in a few seconds.
const HEADERS: Duration = Duration::from_secs(30);
/// On S3 the catalog walks the whole bucket, which takes most of a minute. A server silent for longer is gone.
const CATALOG_HEADERS: Duration = Duration::from_mins(1);
/// A live connection sends something within this time.
const IDLE: Duration = Duration::from_secs(30);
/// The largest body is 32 MiB, so this takes 110 kB/s. It ends a body of one byte per second, which no idle deadline
/// catches.
const TOTAL: Duration = Duration::from_mins(5);
/// Enough to sit out a restart behind a load balancer; more only adds load to a server in trouble.
const ATTEMPTS: u32 = 4;
/// A registry that accepts requests but answers none is reported after a minute and a half, its list after three.
const SILENT: u32 = 3;
/// Waits of about 0.5, 1 and 2 seconds.
const BACKOFF: Duration = Duration::from_millis(500);
/// Docker Hub's abuse limit and many proxies send no `Retry-After`; their windows are a minute or so.
const UNASKED_PAUSE: Duration = Duration::from_secs(10);
/// Longer pauses are for the scan to handle: it can show them and work elsewhere meanwhile.
const SHORT_WAIT: Duration = Duration::from_mins(1);
/// At 100 names per page this is a million names. A registry that never stops paging stops here.
const PAGES: usize = 10_000;
/// Ten times the largest catalog we plan for; keeps the memory of a hostile listing below about 30 MB.
const NAMES: usize = 200_000;

/// Object storage needs one redirect, a CDN before it two.
const REDIRECTS: usize = 5;

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connect: CONNECT,
            headers: HEADERS,
            catalog_headers: CATALOG_HEADERS,
            idle: IDLE,
            total: TOTAL,
            attempts: ATTEMPTS,
            silent: SILENT,
            backoff: BACKOFF,
            unasked_pause: UNASKED_PAUSE,
            short_wait: SHORT_WAIT,
            pages: PAGES,
            names: NAMES,
            redirects: REDIRECTS,
        }
    }
}
