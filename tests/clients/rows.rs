//! What the document lists, and what it says besides.

use crate::clients::table::{Area, Note};

pub const RELEASES: [&str; 7] = ["20.3.10", "21.9.5", "22.3.2", "23.9.10", "24.9.14", "25.19.2", "26.9.6"];

pub const IMAGES: &str = "Images";
pub const REGISTRIES: &str = "Registries";
pub const TENANTS: &str = "Domains, groups, users, keypairs, scaling groups";
pub const AGENTS: &str = "Agents";
pub const SESSIONS: &str = "Session mode";
pub const REST: &str = "The REST API of 26.9";

pub const AREAS: &[Area] = &[
    Area {
        name: IMAGES,
        rows: &[
            "admin image list",
            "admin image list --operation",
            "admin image rescan",
            "admin image rescan -r REGISTRY",
            "admin image rescan -r REGISTRY -p PROJECT",
            "admin image alias ALIAS TARGET",
            "admin image alias ALIAS TARGET --arch ARCH",
            "admin image dealias ALIAS",
            "image list",
            "image list --customized",
            "image forget ID",
            "image forget CANONICAL --arch ARCH",
            "image purge ID",
            "image purge ID --remove-from-registry",
            "Image.get(REFERENCE, ARCH) in Python",
            "Image.get_by_id(ID) in Python",
        ],
    },
    Area {
        name: REGISTRIES,
        rows: &[
            "admin etcd set KEY VALUE",
            "admin etcd set KEY JSON",
            "admin etcd get KEY",
            "admin etcd get --prefix KEY",
            "admin etcd delete KEY",
            "admin etcd delete --prefix KEY",
            "admin resource docker-registries",
        ],
    },
    Area {
        name: TENANTS,
        rows: &[
            "admin domain list",
            "admin domain info NAME",
            "admin domain add NAME",
            "admin domain update NAME",
            "admin domain delete NAME",
            "admin domain purge NAME",
            "admin group list",
            "admin group info ID",
            "admin group info NAME",
            "admin group add DOMAIN NAME",
            "admin group update ID",
            "admin group add-users ID USER",
            "admin group remove-users ID USER",
            "admin group delete ID",
            "admin group purge ID",
            "admin user list",
            "admin user info -e EMAIL",
            "admin user add DOMAIN EMAIL PASSWORD",
            "admin user update EMAIL",
            "admin user delete EMAIL",
            "admin user purge EMAIL",
            "admin keypair list",
            "admin keypair info",
            "admin keypair add EMAIL POLICY",
            "admin keypair update KEY",
            "admin keypair deactivate KEY",
            "admin keypair activate KEY",
            "admin keypair delete KEY",
            "admin keypair-resource-policy list",
            "admin keypair-resource-policy info NAME",
            "admin scaling-group list",
            "admin scaling-group info NAME",
            "admin scaling-group add NAME",
            "admin scaling-group update NAME",
            "admin scaling-group associate-scaling-group NAME DOMAIN",
            "admin scaling-group get-available GROUP",
            "admin scaling-group dissociate-scaling-group NAME DOMAIN",
            "admin scaling-group delete NAME",
        ],
    },
    Area {
        name: AGENTS,
        rows: &[
            "admin agent list",
            "admin agent list -s STATUS",
            "admin agent list, when there are none",
            "admin agent info ID",
        ],
    },
    Area {
        name: SESSIONS,
        rows: &[
            "login",
            "admin image list, signed in",
            "admin image rescan, signed in",
            "logout",
            "v2 login",
            "v2 admin image search, signed in",
            "v2 gql QUERY, signed in",
            "v2 logout",
        ],
    },
    Area {
        name: REST,
        rows: &[
            "v2 admin image search",
            "v2 admin image alias create ID ALIAS",
            "v2 admin image alias search",
            "v2 admin image alias remove ALIAS",
            "v2 admin image update JSON",
            "v2 admin image forget ID",
            "v2 admin image purge ID",
            "v2 admin container-registry create JSON",
            "v2 admin container-registry search",
            "v2 admin container-registry update JSON",
            "v2 admin container-registry delete ID",
            "v2 gql QUERY",
            "v2 gql --v2 QUERY",
        ],
    },
];

pub static ARCH_IS_NOT_SENT: Note = Note {
    number: 1,
    text: "The client sends the architecture as a variable that its own document does not use, so it arrives nowhere: \
           the alias is given to the target's default architecture. Name the image by its id instead.",
    shows: &["An alias has created: arm"],
};

pub static DOCUMENT_DOES_NOT_LEX: Note = Note {
    number: 2,
    text: "The client's document for one image has a stray quotation mark, which no GraphQL server can read. Name the \
           image by its id instead.",
    shows: &["Could not find image.", "GraphQL-generated error"],
};

pub static DISSOCIATE: Note = Note {
    number: 3,
    text: "The client does what was asked, then looks in the answer for a field that it did not ask for, and ends with \
           an error. The scaling group is dissociated all the same.",
    shows: &["KeyError: 'scaling_group'"],
};

pub static FIELDS_ARE_NOT_TEXTS: Note = Note {
    number: 4,
    text: "The client stops before it asks: it joins the names of the fields as texts, which they are no more in this \
           release. Name the group by its id instead.",
    shows: &["TypeError: sequence item 0: expected str instance, FieldSpec found"],
};

pub static NO_ITEMS: Note = Note {
    number: 5,
    text: "The client ends with an error when a list that comes in pages is empty and is not printed to a terminal: it \
           raises a signal of its own there and does not catch it. This is so for every such list.",
    shows: &["NoItems"],
};

pub const NOTES: [&Note; 5] =
    [&ARCH_IS_NOT_SENT, &DOCUMENT_DOES_NOT_LEX, &DISSOCIATE, &FIELDS_ARE_NOT_TEXTS, &NO_ITEMS];

pub const INTRODUCTION: &str = include_str!("introduction.md");

pub const CONSTANTS: &str = "## Constant answers

Clients ask for these because Backend.AI schedules sessions and keeps folders, which wharf does not. They always hold
the same, in the shape that clients expect. In the REST API that goes for an image's `status` (`ALIVE`), `is_local` and
`last_used_at` and a registry's `extra`, in GraphQL for the `status` of an image and for these:
";

pub const UNREAD: &str = "## Taken and not looked at

Clients send these for the same reason. Whatever is in them is taken, and changes nothing.
";
