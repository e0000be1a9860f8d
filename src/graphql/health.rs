//! How the server itself is, for those who run it.

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::engine::room;
use crate::fleet::service::Fleet;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::scalar::BigInt;
use crate::store::Store;

/// How the server itself is.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ServerHealth {
    /// Its version.
    version: &'static str,
    /// What the database takes, in bytes.
    database_bytes: Option<BigInt>,
    /// The room left on the disk it is on, in bytes.
    free_bytes: Option<BigInt>,
    /// All the room of that disk, in bytes.
    total_bytes: Option<BigInt>,
    /// Engines that were named at the start and have not answered since; they are no agents yet.
    unreached_engines: Vec<UnreachedEngine>,
}

/// An engine that has not answered yet.
#[derive(SimpleObject)]
pub(crate) struct UnreachedEngine {
    /// Where it should be.
    addr: String,
    /// Why it can't be asked.
    reason: String,
}

/// The query.
#[derive(Default)]
pub(crate) struct HealthQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl HealthQuery {
    /// How the server itself is. For super-admins.
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
