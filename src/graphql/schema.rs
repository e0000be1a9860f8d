//! Builds the schema, and limits what one request may ask.

use async_graphql::{EmptySubscription, MergedObject, SDLExportOptions};

use crate::access::accounts::Accounts;
use crate::access::audit::Audit;
use crate::access::directory::Directory;
use crate::access::joins::Joins;
use crate::access::sign_in::SignIn;
use crate::access::tokens::Tokens;
use crate::base::walk::Walks;
use crate::catalog::service::Catalog;
use crate::fleet::links::Links;
use crate::fleet::service::Fleet;
use crate::graphql::agents::{AgentMutation, AgentQuery};
use crate::graphql::associations::AssociationMutation;
use crate::graphql::audit::AuditQuery;
use crate::graphql::changes::ChangeQuery;
use crate::graphql::domains::{DomainMutation, DomainQuery};
use crate::graphql::explain::ExplainQuery;
use crate::graphql::groups::{GroupMutation, GroupQuery};
use crate::graphql::health::HealthQuery;
use crate::graphql::image_nodes::{ImageNodeMutation, ImageNodeQuery};
use crate::graphql::images::{ImageMutation, ImageQuery};
use crate::graphql::joins::{JoinMutation, JoinQuery};
use crate::graphql::keypairs::{KeyPairMutation, KeyPairQuery};
use crate::graphql::policies::{PolicyMutation, PolicyQuery};
use crate::graphql::presence::PresenceQuery;
use crate::graphql::registries::{RegistryMutation, RegistryQuery};
use crate::graphql::retention::{RetentionMutation, RetentionQuery};
use crate::graphql::room::{RoomMutation, RoomQuery};
use crate::graphql::rules::{RuleMutation, RuleQuery};
use crate::graphql::scaling_groups::{ScalingGroupMutation, ScalingGroupQuery};
use crate::graphql::sessions::{SessionMutation, SessionQuery};
use crate::graphql::spec::validate::Validator;
use crate::graphql::tasks::{TaskMutation, TaskQuery};
use crate::graphql::tokens::{TokenMutation, TokenQuery};
use crate::graphql::transfers::TransferQuery;
use crate::graphql::users::{UserMutation, UserQuery};
use crate::retention::service::Retention;
use crate::rules::service::Rules;
use crate::scan::service::Scanner;
use crate::store::Store;
use crate::tasks::queue::Queue;
use crate::transfer::pins::Pins;
use crate::transfer::service::Transfers;

/// The deepest nesting of selections: the introspection query that tools send goes 13 deep, our own types 5.
const MAX_DEPTH: usize = 15;
/// The most fields of one request, weighed: a list counts as [`LIST_COST`](crate::graphql::kit::limit::LIST_COST).
const MAX_COMPLEXITY: usize = 2_000;
/// The most directives on one field.
const MAX_DIRECTIVES: usize = 8;
/// The deepest nesting of the text itself, which the parser holds on its stack.
const MAX_RECURSION: usize = 32;

/// All queries.
#[derive(MergedObject, Default)]
#[graphql(name = "Query")]
pub(crate) struct Query(
    ImageQuery,
    ImageNodeQuery,
    ChangeQuery,
    ExplainQuery,
    AgentQuery,
    JoinQuery,
    PresenceQuery,
    TransferQuery,
    RoomQuery,
    RuleQuery,
    RetentionQuery,
    RegistryQuery,
    TaskQuery,
    AuditQuery,
    DomainQuery,
    GroupQuery,
    UserQuery,
    KeyPairQuery,
    PolicyQuery,
    ScalingGroupQuery,
    SessionQuery,
    TokenQuery,
    HealthQuery,
);

/// All mutations.
#[derive(MergedObject, Default)]
#[graphql(name = "Mutation")]
pub(crate) struct Mutation(
    ImageMutation,
    ImageNodeMutation,
    AgentMutation,
    JoinMutation,
    RuleMutation,
    RetentionMutation,
    RoomMutation,
    RegistryMutation,
    TaskMutation,
    DomainMutation,
    GroupMutation,
    UserMutation,
    KeyPairMutation,
    PolicyMutation,
    ScalingGroupMutation,
    AssociationMutation,
    SessionMutation,
    TokenMutation,
);

/// The schema as the library has it. Requests go through [`spec::Api`](crate::graphql::spec::Api).
pub(crate) type Schema = async_graphql::Schema<Query, Mutation, EmptySubscription>;

/// The services that the resolvers call.
pub(crate) struct Services {
    /// For the size of the database.
    pub(crate) store: Store,
    /// For the user that an explanation is about.
    pub(crate) accounts: Accounts,
    /// For the audit log.
    pub(crate) audit: Audit,
    /// For domains, groups, users, keypairs and scaling groups.
    pub(crate) directory: Directory,
    /// For sessions.
    pub(crate) sign_in: SignIn,
    /// For API tokens.
    pub(crate) tokens: Tokens,
    /// For images and registries.
    pub(crate) catalog: Catalog,
    /// For agents.
    pub(crate) fleet: Fleet,
    /// For join tokens.
    pub(crate) joins: Joins,
    /// For agents on other machines.
    pub(crate) links: Links,
    /// For scans.
    pub(crate) scanner: Scanner,
    /// For preloads and unloads.
    pub(crate) transfers: Transfers,
    /// For pins.
    pub(crate) pins: Pins,
    /// For standing preloads.
    pub(crate) rules: Rules,
    /// For retention rules.
    pub(crate) retention: Retention,
    /// For tasks.
    pub(crate) queue: Queue,
}

/// Builds the schema over these services; its long walks run on `walks`.
pub(crate) fn build(services: Services, walks: Walks) -> Schema {
    let Services {
        store,
        accounts,
        audit,
        directory,
        sign_in,
        tokens,
        catalog,
        fleet,
        joins,
        links,
        scanner,
        transfers,
        pins,
        rules,
        retention,
        queue,
    } = services;
    builder()
        .data(store)
        .data(accounts)
        .data(audit)
        .data(directory)
        .data(sign_in)
        .data(tokens)
        .data(catalog)
        .data(fleet)
        .data(joins)
        .data(links)
        .data(scanner)
        .data(transfers)
        .data(pins)
        .data(rules)
        .data(retention)
        .data(queue)
        .data(walks)
        .finish()
}

/// Returns the schema as text, in GraphQL's schema definition language.
pub(crate) fn sdl() -> String {
    let options = SDLExportOptions::new().sorted_fields().sorted_arguments().sorted_enum_items();
    builder().finish().sdl_with_options(options)
}

/// Returns a schema without services, which answers introspection only.
#[cfg(test)]
pub(crate) fn empty() -> Schema {
    builder().finish()
}

fn builder() -> async_graphql::SchemaBuilder<Query, Mutation, EmptySubscription> {
    Schema::build(Query::default(), Mutation::default(), EmptySubscription)
        .limit_depth(MAX_DEPTH)
        .limit_complexity(MAX_COMPLEXITY)
        .limit_directives(MAX_DIRECTIVES)
        .limit_recursive_depth(MAX_RECURSION)
        .extension(Validator)
}
