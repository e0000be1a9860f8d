//! The state of the server itself, for its operators.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::engine::room;
use crate::fleet::service::Fleet;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::scalar::BigInt;
use crate::store::Store;

/// The state of the server itself.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ServerHealth {
    /// The server's version.
    version: &'static str,
    /// The size of the database, in bytes.
    database_bytes: Option<BigInt>,
    /// The free room on the disk of the database, in bytes.
    free_bytes: Option<BigInt>,
    /// The size of that disk, in bytes.
    total_bytes: Option<BigInt>,
    /// Engines that were configured at the start and have not answered since; they are not listed as agents yet.
    unreached_engines: Vec<UnreachedEngine>,
}

/// An engine that has not answered yet.
#[derive(SimpleObject)]
pub(crate) struct UnreachedEngine {
    /// The address at which the server expects it.
    addr: String,
    /// Why the server can't reach it.
    reason: String,
}

/// The query.
#[derive(Default)]
pub(crate) struct HealthQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl HealthQuery {
    /// The state of the server itself. For super-admins.
    async fn server_health(&self, ctx: &Context<'_>) -> FieldResult<Option<ServerHealth>> {
        let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
        let unreached = fleet.unreached(caller)?;
        let store = ctx.data_unchecked::<Store>();
        let room = room::of(store.directory().to_owned()).await;
        Ok(Some(ServerHealth {
            version: env!("CARGO_PKG_VERSION"),
            database_bytes: store.size().map(BigInt),
            free_bytes: room.map(|(free, _)| BigInt(free)),
            total_bytes: room.map(|(_, total)| BigInt(total)),
            unreached_engines: unreached
                .into_iter()
                .map(|(addr, reason)| UnreachedEngine { addr, reason })
                .collect(),
        }))
    }
}
