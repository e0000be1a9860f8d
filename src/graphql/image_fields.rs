//! The fields of an image: in `Image` and `ImageNode`, and as filters and orders name them.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::access::caller::Caller;
use crate::access::visibility::{Owner, PresenceIndex};
use crate::base::bits::Bits;
use crate::catalog::describe::ResourceLimit;
use crate::catalog::image::{Image, Seconds};
use crate::catalog::service::Catalog;
use crate::graphql::kit::field::{Field, Read, Record, number};
use crate::graphql::kit::rows::{self, Column, Nested, Plan, Row};
use crate::graphql::kit::scalar::BigInt;

/// The prefix of an image's Relay id before it is encoded.
const NODE: &str = "ImageNode:";

/// The caller who is shown images, and what is looked up for the caller besides the image.
pub(crate) struct Audience {
    caller: Caller,
    is_superadmin: bool,
    presence: Arc<dyn PresenceIndex>,
    /// The images that at least one agent has, by number.
    installed: Bits,
}

impl Audience {
    /// Returns the audience for this caller, with the agents' current holdings.
    pub(crate) fn new(caller: &Caller, catalog: &Catalog) -> Arc<Self> {
        let presence = Arc::clone(catalog.presence());
        let installed = presence.held(None);
        Arc::new(Self { is_superadmin: caller.is_superadmin(), caller: caller.clone(), presence, installed })
    }

    /// Whether an agent has the image.
    fn is_installed(&self, image: &Image) -> bool {
        self.installed.contains(image.subject.number as usize)
    }

    /// The caller's permissions on an image, in Backend.AI's words.
    fn permissions(&self) -> &'static [&'static str] {
        if self.is_superadmin {
            &["read_attribute", "update_attribute", "create_container", "forget_image"]
        } else {
            &["read_attribute", "create_container"]
        }
    }

    /// Whether the caller has this permission on the images they see.
    pub(crate) fn may(&self, permission: &str) -> bool {
        self.permissions().contains(&permission)
    }
}

/// An image as one caller sees it.
#[derive(Clone)]
pub(crate) struct ImageRow {
    image: Arc<Image>,
    audience: Arc<Audience>,
}

impl ImageRow {
    /// Returns the row of this image for this audience.
    pub(crate) fn new(image: Arc<Image>, audience: &Arc<Audience>) -> Self {
        Self { image, audience: Arc::clone(audience) }
    }
}

/// An image under the name and with the ids that Relay uses.
pub(crate) struct ImageNode(pub(crate) ImageRow);

/// A row that shows an image.
trait Shown: for<'a> Row<View<'a> = &'a Self> {
    fn image(&self) -> &Image;
    fn audience(&self) -> &Audience;
}

impl Shown for ImageRow {
    fn image(&self) -> &Image {
        &self.image
    }

    fn audience(&self) -> &Audience {
        &self.audience
    }
}

impl Shown for ImageNode {
    fn image(&self) -> &Image {
        &self.0.image
    }

    fn audience(&self) -> &Audience {
        &self.0.audience
    }
}

impl Row for ImageRow {
    const NAME: &'static str = "Image";
    const DOC: &'static str = "One registry, name, tag and architecture.";
    type View<'a> = &'a Self;

    fn columns() -> &'static [Column<Self>] {
        static COLUMNS: LazyLock<Vec<Column<ImageRow>>> = LazyLock::new(|| {
            let mut columns = common();
            columns.push(text(
                "id",
                "The same for one name and architecture, always: a UUID.",
                |row: &ImageRow, _, out| {
                    rows::plain(&row.image().id, out);
                },
            ));
            columns
        });
        &COLUMNS
    }
}

impl Row for ImageNode {
    const NAME: &'static str = "ImageNode";
    const DOC: &'static str = "One registry, name, tag and architecture, as a node of Relay's.";
    type View<'a> = &'a Self;

    fn columns() -> &'static [Column<Self>] {
        static COLUMNS: LazyLock<Vec<Column<ImageNode>>> = LazyLock::new(|| {
            let mut columns = common();
            columns.push(column(
                "id",
                "ID!",
                "Its id among the nodes of all kinds.",
                |row: &ImageNode, _, out| {
                    rows::plain(&BASE64_STANDARD.encode(format!("{NODE}{}", row.image().id)), out);
                },
            ));
            columns.push(text("row_id", "Its id among images: a UUID.", |row, _, out| {
                rows::plain(&row.image().id, out);
            }));
            columns.push(column(
                "permissions",
                "[ImagePermissionValueField]",
                "What the caller may do with it.",
                |row, _, out| {
                    rows::texts(row.audience().permissions(), out);
                },
            ));
            columns.push(text("type", "`compute`, `system` or `service`.", |row, _, out| {
                rows::text(row.image().kind().as_str(), out);
            }));
            columns
        });
        &COLUMNS
    }
}

/// Returns the image id inside a Relay id, or the text itself if it is no Relay id.
pub(crate) fn plain_id(text: &str) -> String {
    let decoded = BASE64_STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.and_then(|node| node.strip_prefix(NODE).map(str::to_owned)).unwrap_or_else(|| text.into())
}

/// An image and the audience it is shown to, for filters.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// The image.
    pub(crate) image: &'a Arc<Image>,
    /// The audience it is shown to.
    pub(crate) audience: &'a Audience,
}

impl Seen<'_> {
    /// Whether an agent holds an outdated version of the image. Only super-admins may know where images are.
    fn is_stale(self) -> Option<bool> {
        let record = &self.image.record;
        let stale = || self.audience.presence.is_stale(record.canonical().as_str(), &record.identity());
        self.audience.is_superadmin.then(stale)
    }

    /// Whether the image is the caller's own customized image; for super-admins, whether it is any user's.
    pub(crate) fn is_customized(self) -> bool {
        match self.image.config.owner.as_deref() {
            None => false,
            Some(owner) => self.audience.is_superadmin || *owner == Owner::User(self.audience.caller.user),
        }
    }
}

impl Record for Image {
    type View<'a> = Seen<'a>;

    fn row(view: Self::View<'_>) -> &Self {
        view.image
    }

    fn fields() -> &'static [Field<Self>] {
        &[
            Field { name: "id", read: Read::Id(|image| Some(image.id.to_string().into()), plain_id) },
            Field { name: "row_id", read: Read::Text(|image| Some(image.id.to_string().into())) },
            Field { name: "name", read: Read::Text(|image| Some(image.record.name.as_str().into())) },
            Field { name: "namespace", read: Read::Text(|image| Some(image.record.name.as_str().into())) },
            Field { name: "image", read: Read::Text(|image| Some(image.record.name.as_str().into())) },
            Field {
                name: "canonical",
                read: Read::Text(|image| Some(image.record.canonical().to_string().into())),
            },
            Field { name: "registry", read: Read::Text(|image| Some(image.record.registry.as_str().into())) },
            Field { name: "project", read: Read::Text(|image| image.project().map(Into::into)) },
            Field { name: "tag", read: Read::Text(|image| Some(image.record.tag.as_str().into())) },
            Field {
                name: "architecture",
                read: Read::Text(|image| Some(image.record.architecture.as_str().into())),
            },
            Field { name: "digest", read: Read::Text(|image| Some(image.record.digest.as_str().into())) },
            Field { name: "size_bytes", read: Read::Number(|image| Some(number(image.record.size_bytes))) },
            Field { name: "humanized_name", read: Read::Text(|image| Some((*image.humanized_name).into())) },
            Field { name: "status", read: Read::Text(|_| Some("ALIVE".into())) },
            Field { name: "type", read: Read::Text(|image| Some(image.kind().as_str().into())) },
            Field { name: "created_at", read: Read::Time(|image| image.config.created_at) },
            Field { name: "first_seen_at", read: Read::Time(|image| image.record.first_seen.time()) },
            Field { name: "changed_at", read: Read::Time(|image| image.record.changed.time()) },
            Field { name: "is_local", read: Read::Truth(|_| Some(false)) },
            Field {
                name: "is_installed",
                read: Read::Truth(|seen| Some(seen.audience.is_installed(seen.image))),
            },
            Field {
                name: "installed",
                read: Read::Truth(|seen| Some(seen.audience.is_installed(seen.image))),
            },
            Field { name: "stale", read: Read::Truth(|seen| seen.is_stale()) },
            Field { name: "is_operation", read: Read::Truth(|seen| Some(seen.image.config.is_operation)) },
            Field { name: "is_customized", read: Read::Truth(|seen| Some(seen.is_customized())) },
            Field {
                name: "aliases",
                read: Read::Texts(|image, is_it| image.aliases.iter().any(|alias| is_it(alias))),
            },
            Field {
                name: "accelerators",
                read: Read::Texts(|image, is_it| image.accelerators().iter().any(|name| is_it(name))),
            },
            Field {
                name: "supported_accelerators",
                read: Read::Texts(|image, is_it| image.accelerators().iter().any(|name| is_it(name))),
            },
            Field {
                name: "labels",
                read: Read::Keyed(|image, key| image.config.labels.find(key).map(Into::into)),
            },
        ]
    }
}

/// A column for a text of the image.
fn text<R: Shown>(name: &'static str, doc: &'static str, write: fn(&R, &Plan, &mut Vec<u8>)) -> Column<R> {
    column(name, "String", doc, write)
}

fn column<R: Shown>(
    name: &'static str,
    ty: &'static str,
    doc: &'static str,
    write: fn(&R, &Plan, &mut Vec<u8>),
) -> Column<R> {
    Column { name, ty, doc, nested: None, write }
}

/// The columns that `Image` and `ImageNode` share.
fn common<R: Shown>() -> Vec<Column<R>> {
    let mut columns = described();
    columns.extend(seen());
    columns
}

/// When the catalog had an image.
fn seen<R: Shown>() -> [Column<R>; 2] {
    [
        text("first_seen_at", "When the catalog first had it; null if that was not kept.", |row, _, out| {
            time(row.image().record.first_seen, out);
        }),
        text(
            "changed_at",
            "When its tag last came to mean another image, or it was new; null if that was not kept.",
            |row, _, out| time(row.image().record.changed, out),
        ),
    ]
}

/// What an image is and where.
fn described<R: Shown>() -> Vec<Column<R>> {
    vec![
        text("name", "The repository, without the registry.", |row, _, out| {
            rows::text(&row.image().record.name, out);
        }),
        text("namespace", "The same as `name`, which later clients ask for.", |row, _, out| {
            rows::text(&row.image().record.name, out);
        }),
        text("humanized_name", "A name for people: `Python 3.9, Ubuntu 20.04`.", |row, _, out| {
            rows::text(&row.image().humanized_name, out);
        }),
        text("tag", "The tag.", |row, _, out| rows::text(&row.image().record.tag, out)),
        text("registry", "The registry's host, with its port if it has one.", |row, _, out| {
            rows::text(&row.image().record.registry, out);
        }),
        text("project", "The first part of the repository's name, if it has several.", |row, _, out| {
            rows::text_or_null(row.image().project(), out);
        }),
        text("architecture", "As `uname -m` has it: `x86_64`, `aarch64`.", |row, _, out| {
            rows::text(&row.image().record.architecture, out);
        }),
        text("digest", "The digest of the config: what Docker calls the image ID.", |row, _, out| {
            rows::plain(&row.image().record.digest, out);
        }),
        text("hash", "The same as `digest`, under its oldest name.", |row, _, out| {
            rows::plain(&row.image().record.digest, out);
        }),
        text("manifest_digest", "The digest of this architecture's manifest.", |row, _, out| {
            rows::plain(&row.image().record.manifest, out);
        }),
        text(
            "target_digest",
            "What the tag points at: the manifest, or the index that it is in.",
            |row, _, out| {
                rows::plain(&row.image().record.target, out);
            },
        ),
        Column {
            name: "labels",
            ty: "[KVPair]",
            doc: "The labels of the config, by key.",
            nested: Some(Nested::of::<Label>()),
            write: |row, plan, out| plan.write_all::<Label>(row.image().config.labels.iter(), out),
        },
        column("aliases", "[String]", "Its other names.", |row, _, out| {
            rows::texts(&row.image().aliases, out);
        }),
        column(
            "size_bytes",
            "BigInt",
            "Layers and config, compressed as they lie in the registry.",
            |row, _, out| {
                rows::number(BigInt(row.image().record.size_bytes).written(), out);
            },
        ),
        text("status", "`ALIVE`; Backend.AI's clients ask for it.", |_, _, out| rows::text("ALIVE", out)),
        column("is_local", "Boolean", "Whether it is in no registry; always false.", |_, _, out| {
            rows::boolean(false, out);
        }),
        Column {
            name: "resource_limits",
            ty: "[ResourceLimit]",
            doc: "What a container of it needs at least and may have at most, by resource slot.",
            nested: Some(Nested::of::<Limit>()),
            write: |row, plan, out| plan.write_all::<Limit>(row.image().config.resource_limits.iter(), out),
        },
        column(
            "supported_accelerators",
            "[String]",
            "The accelerators it runs with; `*` for any.",
            |row, _, out| {
                rows::texts(row.image().accelerators(), out);
            },
        ),
        column("installed", "Boolean", "Whether an agent has it.", |row, _, out| {
            rows::boolean(row.audience().is_installed(row.image()), out);
        }),
        column(
            "installed_agents",
            "[String]",
            "The agents that have it; null but for super-admins.",
            |row, _, out| {
                let audience = row.audience();
                if audience.is_superadmin {
                    rows::texts(audience.presence.agents(row.image().subject.number), out);
                } else {
                    rows::null(out);
                }
            },
        ),
        text("created_at", "When it was made, as its config says.", |row, _, out| {
            match &row.image().config.created_at {
                Some(created) => rows::plain(created, out),
                None => rows::null(out),
            }
        }),
    ]
}

fn time(at: Seconds, out: &mut Vec<u8>) {
    match at.time() {
        Some(at) => rows::plain(&at, out),
        None => rows::null(out),
    }
}

/// A label of an image.
struct Label;

impl Row for Label {
    const NAME: &'static str = "KVPair";
    const DOC: &'static str = "A key and its value.";
    type View<'a> = (&'a str, &'a str);

    fn columns() -> &'static [Column<Self>] {
        &[
            Column {
                name: "key",
                ty: "String",
                doc: "The key.",
                nested: None,
                write: |pair, _, out| rows::text(pair.0, out),
            },
            Column {
                name: "value",
                ty: "String",
                doc: "The value.",
                nested: None,
                write: |pair, _, out| rows::text(pair.1, out),
            },
        ]
    }
}

/// A resource limit of an image.
struct Limit;

impl Row for Limit {
    const NAME: &'static str = "ResourceLimit";
    const DOC: &'static str = "What a container needs, and may have, of one resource slot.";
    type View<'a> = &'a ResourceLimit;

    fn columns() -> &'static [Column<Self>] {
        &[
            Column {
                name: "key",
                ty: "String",
                doc: "The slot: `cpu`, `mem`, `cuda.device`.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.key, out),
            },
            Column {
                name: "min",
                ty: "String",
                doc: "The least; `0` if the image does not say.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.min, out),
            },
            Column {
                name: "max",
                ty: "String",
                doc: "The most; `Infinity` if the image does not say.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.max, out),
            },
        ]
    }
}
