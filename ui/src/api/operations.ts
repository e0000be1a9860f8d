import type { DocumentTypeDecoration } from '@graphql-typed-document-node/core';
export type Maybe<T> = T | null;
export type InputMaybe<T> = T | null;
export type Exact<T extends { [key: string]: unknown }> = { [K in keyof T]: T[K] };
export type MakeOptional<T, K extends keyof T> = Omit<T, K> & { [SubKey in K]?: Maybe<T[SubKey]> };
export type MakeMaybe<T, K extends keyof T> = Omit<T, K> & { [SubKey in K]: Maybe<T[SubKey]> };
export type MakeEmpty<T extends { [key: string]: unknown }, K extends keyof T> = { [_ in K]?: never };
export type Incremental<T> = T | { [P in keyof T]?: P extends ' $fragmentName' | '__typename' ? T[P] : never };
/** All built-in and custom scalars, mapped to their actual values */
export type Scalars = {
  ID: { input: string; output: string; }
  String: { input: string; output: string; }
  Boolean: { input: boolean; output: boolean; }
  Int: { input: number; output: number; }
  Float: { input: number; output: number; }
  BigInt: { input: number; output: number; }
  CreateKeyPairResourcePolicyInput: { input: any; output: any; }
  /** A Relay id, which is unique among the nodes of all kinds; an image's own id is accepted as well. */
  GlobalIDField: { input: any; output: any; }
  /** A permission on an image: `read_attribute`, `update_attribute`, `create_container`, `forget_image`. */
  ImagePermissionValueField: { input: any; output: any; }
  JSONString: { input: string; output: string; }
  ModifyKeyPairResourcePolicyInput: { input: any; output: any; }
  /** The scope from which something is seen: `system:`, `domain:NAME`, `project:ID`, `user:ID`. */
  ScopeField: { input: string; output: string; }
  UUID: { input: string; output: string; }
};

/** A label to set. */
export type AgentLabelInput = {
  /** Its key. */
  key: Scalars['String']['input'];
  /** Its value. */
  value: Scalars['String']['input'];
};

/** The outcome of a mutation. */
export type AuditOutcome =
  /** The caller has no right to do it. */
  | 'DENIED'
  /** The change was made, or accepted as a task. */
  | 'DONE'
  /** The change failed; nothing was changed. */
  | 'FAILED';

/** What a new join token allows. */
export type CreateAgentTokenInput = {
  /** How many seconds it is valid: 3,600 if not given, 30 days at most. */
  expires_in?: InputMaybe<Scalars['Int']['input']>;
  /** The only agent that may use it; any agent if not given. */
  id?: InputMaybe<Scalars['String']['input']>;
  /**
   * The scaling group of the agents that join with it. If not given, the group that the agent asks for, or
   * `default`.
   */
  scaling_group?: InputMaybe<Scalars['String']['input']>;
  /** How many joins it allows; one if not given. */
  uses?: InputMaybe<Scalars['Int']['input']>;
};

/** A new registry. */
export type CreateContainerRegistryInput = {
  /**
   * A file below the server's directory of credentials that has user and password, in the form of Docker's
   * `config.json`, read at each use; an empty text for none.
   */
  auth_file?: InputMaybe<Scalars['String']['input']>;
  /** Certificates to trust for it, in PEM; an empty text for none. */
  ca_pem?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is intended for every domain; true if not given. */
  is_global?: InputMaybe<Scalars['Boolean']['input']>;
  /** Whether to take only images with Backend.AI's labels; false if not given. */
  kernelspec_only?: InputMaybe<Scalars['Boolean']['input']>;
  /** The account's password or token; an empty text for none. */
  password?: InputMaybe<Scalars['String']['input']>;
  /**
   * A variable of the server's environment that has the password, its name beginning with `WHARF_REGISTRY_`;
   * an empty text for none.
   */
  password_env?: InputMaybe<Scalars['String']['input']>;
  /**
   * A file below the server's directory of credentials that has the password, read at each use; an empty text
   * for none.
   */
  password_file?: InputMaybe<Scalars['String']['input']>;
  /** Read only these repositories and repositories below them. */
  project?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /**
   * How the server reaches it: a proxy, as in `http://user:password@proxy.lab:3128`, or `direct`; an empty text
   * for the proxies that the server's environment names.
   */
  proxy?: InputMaybe<Scalars['String']['input']>;
  /** Whether to check its TLS certificate; true if not given. */
  ssl_verify?: InputMaybe<Scalars['Boolean']['input']>;
  /** Hosts besides its own to which the server may send its requests and credentials. */
  trusted_hosts?: InputMaybe<Array<Scalars['String']['input']>>;
  /** Its software: `docker`, `harbor2`, ... */
  type?: InputMaybe<Scalars['String']['input']>;
  /** The address at which it answers; `https://` and the host name if not given. */
  url?: InputMaybe<Scalars['String']['input']>;
  /** The account to read it with; an empty text for none. */
  username?: InputMaybe<Scalars['String']['input']>;
};

/** A new rule. */
export type CreatePreloadRuleInput = {
  /** The one architecture whose images it loads; each agent's own if not given. */
  architecture?: InputMaybe<Scalars['String']['input']>;
  /** Whether the rule is in effect; true if not given. */
  enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /**
   * A pattern for `registry/name:tag`, which selects the images; `*` stands for any characters, `?` for any single
   * one.
   */
  images: Scalars['String']['input'];
  /** The expression that selects the agents. Names that do not exist yet are accepted and reported. */
  target_agents: Scalars['String']['input'];
  /** The IANA name of the window's time zone; the server's own if not given. */
  time_zone?: InputMaybe<Scalars['String']['input']>;
  /** When it may begin to load, `HH:MM-HH:MM`; always if not given. The window may extend over midnight. */
  window?: InputMaybe<Scalars['String']['input']>;
};

/** A new retention rule. One of `keep_last`, `unused_for` and `when_below` is needed. */
export type CreateRetentionRuleInput = {
  /** Whether it may take more than half of what an agent has. */
  confirm?: InputMaybe<Scalars['Boolean']['input']>;
  /** Whether the rule is in effect; true if not given. */
  enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /** A pattern for `registry/name:tag`: the images that it may take. */
  images: Scalars['String']['input'];
  /** How many images of each repository stay on each agent: those that were made last. */
  keep_last?: InputMaybe<Scalars['Int']['input']>;
  /** The expression that selects the agents. Names that do not exist yet are accepted and reported. */
  target_agents: Scalars['String']['input'];
  /** The IANA name of the window's time zone; the server's own if not given. */
  time_zone?: InputMaybe<Scalars['String']['input']>;
  /** Whether to take images that the catalog does not know, too. */
  unknown_images?: InputMaybe<Scalars['Boolean']['input']>;
  /** Take until this is free, in bytes; as much as `when_below` if not given. */
  until?: InputMaybe<Scalars['BigInt']['input']>;
  /** How long no container may have been seen to use an image, in seconds; a day at least. */
  unused_for?: InputMaybe<Scalars['Int']['input']>;
  /** Take something only where less than this is free, in bytes. */
  when_below?: InputMaybe<Scalars['BigInt']['input']>;
  /** When it may begin, `HH:MM-HH:MM`; always if not given. */
  window?: InputMaybe<Scalars['String']['input']>;
};

/** A new scaling group. The oldest clients call this type `ScalingGroupInput`, which is accepted too. */
export type CreateScalingGroupInput = {
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  driver?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  driver_opts?: InputMaybe<Scalars['JSONString']['input']>;
  /** Whether it is active. An image is not visible through an inactive scaling group. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  is_public?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  scheduler?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  scheduler_opts?: InputMaybe<Scalars['JSONString']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  use_host_network?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  wsproxy_addr?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  wsproxy_api_token?: InputMaybe<Scalars['String']['input']>;
};

/** A new domain. */
export type DomainInput = {
  /** The registries whose images its users may see. */
  allowed_docker_registries?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  allowed_vfolder_hosts?: InputMaybe<Scalars['JSONString']['input']>;
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is active; true if not given. Users of an inactive domain see no images. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  total_resource_slots?: InputMaybe<Scalars['JSONString']['input']>;
};

/** What kind of failure it is. A kind keeps its word even if the message changes; more kinds may be added. */
export type ErrorCode =
  /** A thing of that name already exists. */
  | 'ALREADY_EXISTS'
  /** The name stands for several things, which the message lists. */
  | 'AMBIGUOUS'
  /** Too much is asked at once; the same request may succeed later. */
  | 'BUSY'
  /** The request's date is too far from the server's time. */
  | 'CLOCK_SKEW'
  /**
   * Nothing was removed, because it would be too much to remove without confirmation; send the request again and
   * confirm.
   */
  | 'CONFIRMATION_REQUIRED'
  /** The thing's current state does not allow it; the message says what has to change first. */
  | 'CONFLICT'
  /** The caller may not do this. */
  | 'DENIED'
  /** A fault of the server; its log has the cause. */
  | 'INTERNAL'
  /** An argument, or the document, is not valid. */
  | 'INVALID'
  /** The server's limit on the number of such things is reached. */
  | 'LIMIT_REACHED'
  /** The thing does not exist, or the caller may not see it. */
  | 'NOT_FOUND'
  /** The request has no valid credential. */
  | 'UNAUTHENTICATED'
  /** The server can't do it now: its disk is full or broken, or the request's time is over. */
  | 'UNAVAILABLE'
  /** A registry or an engine does not answer correctly. */
  | 'UNREACHABLE';

/** A new group. */
export type GroupInput = {
  /** Not looked at; accepted for Backend.AI's clients. */
  allowed_vfolder_hosts?: InputMaybe<Scalars['JSONString']['input']>;
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** The domain it belongs to; the caller's own if not given. */
  domain_name?: InputMaybe<Scalars['String']['input']>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is active; true if not given. An inactive group gives its members nothing. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  total_resource_slots?: InputMaybe<Scalars['JSONString']['input']>;
};

/** Whether an image is in use or was removed (Backend.AI 25.4). */
export type ImageStatus =
  /** In the catalog. */
  | 'ALIVE'
  /** Removed. wharf keeps no removed images. */
  | 'DELETED';

/** A new keypair. It is active and has a rate limit of 5000 unless given otherwise. */
export type KeyPairInput = {
  /** Not looked at; accepted for Backend.AI's clients. */
  concurrency_limit?: InputMaybe<Scalars['Int']['input']>;
  /** Whether it may be used. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at: it follows the user's role. */
  is_admin?: InputMaybe<Scalars['Boolean']['input']>;
  /** How many requests it may make in a window; 0 for no limit. */
  rate_limit?: InputMaybe<Scalars['Int']['input']>;
  /** The resource policy; `default` is the only one. */
  resource_policy?: InputMaybe<Scalars['String']['input']>;
};

/** The properties of an agent that an admin may change. */
export type ModifyAgentInput = {
  /** Labels to set; an empty value removes one. */
  labels?: InputMaybe<Array<AgentLabelInput>>;
  /** The scaling group it is in. */
  scaling_group?: InputMaybe<Scalars['String']['input']>;
  /** If false, the agent gets no new images. It keeps the images it has and finishes those it is loading. */
  schedulable?: InputMaybe<Scalars['Boolean']['input']>;
};

/** Changes to a registry. A field that is null keeps its value. */
export type ModifyContainerRegistryInput = {
  /**
   * A file below the server's directory of credentials that has user and password, in the form of Docker's
   * `config.json`, read at each use; an empty text for none.
   */
  auth_file?: InputMaybe<Scalars['String']['input']>;
  /** Certificates to trust for it, in PEM; an empty text for none. */
  ca_pem?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is intended for every domain; true if not given. */
  is_global?: InputMaybe<Scalars['Boolean']['input']>;
  /** Whether to take only images with Backend.AI's labels; false if not given. */
  kernelspec_only?: InputMaybe<Scalars['Boolean']['input']>;
  /** The account's password or token; an empty text for none. */
  password?: InputMaybe<Scalars['String']['input']>;
  /**
   * A variable of the server's environment that has the password, its name beginning with `WHARF_REGISTRY_`;
   * an empty text for none.
   */
  password_env?: InputMaybe<Scalars['String']['input']>;
  /**
   * A file below the server's directory of credentials that has the password, read at each use; an empty text
   * for none.
   */
  password_file?: InputMaybe<Scalars['String']['input']>;
  /** Read only these repositories and repositories below them. */
  project?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /**
   * How the server reaches it: a proxy, as in `http://user:password@proxy.lab:3128`, or `direct`; an empty text
   * for the proxies that the server's environment names.
   */
  proxy?: InputMaybe<Scalars['String']['input']>;
  /** Whether to check its TLS certificate; true if not given. */
  ssl_verify?: InputMaybe<Scalars['Boolean']['input']>;
  /** Hosts besides its own to which the server may send its requests and credentials. */
  trusted_hosts?: InputMaybe<Array<Scalars['String']['input']>>;
  /** Its software: `docker`, `harbor2`, ... */
  type?: InputMaybe<Scalars['String']['input']>;
  /** The address at which it answers; `https://` and the host name if not given. */
  url?: InputMaybe<Scalars['String']['input']>;
  /** The account to read it with; an empty text for none. */
  username?: InputMaybe<Scalars['String']['input']>;
};

/** Changes to a domain. A field that is null keeps its value. */
export type ModifyDomainInput = {
  /**
   * The registries whose images its users may see. An empty list changes nothing, because the older official
   * clients send one with every change; `[""]` empties the list.
   */
  allowed_docker_registries?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  allowed_vfolder_hosts?: InputMaybe<Scalars['JSONString']['input']>;
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is active. Users of an inactive domain see no images. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** A new name. */
  name?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  total_resource_slots?: InputMaybe<Scalars['JSONString']['input']>;
};

/** Changes to a group. A field that is null keeps its value. */
export type ModifyGroupInput = {
  /** Not looked at; accepted for Backend.AI's clients. */
  allowed_vfolder_hosts?: InputMaybe<Scalars['JSONString']['input']>;
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** The domain it belongs to. A group can't be moved to another domain. */
  domain_name?: InputMaybe<Scalars['String']['input']>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Whether it is active. An inactive group gives its members nothing. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** A new name. */
  name?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  total_resource_slots?: InputMaybe<Scalars['JSONString']['input']>;
  /** What to do with the users of `user_uuids`: `add` or `remove`. */
  user_update_mode?: InputMaybe<Scalars['String']['input']>;
  /** Users, by id or e-mail address. */
  user_uuids?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
};

/** Changes to a keypair. A field that is null keeps its value. */
export type ModifyKeyPairInput = {
  /** Not looked at; accepted for Backend.AI's clients. */
  concurrency_limit?: InputMaybe<Scalars['Int']['input']>;
  /** Whether it may be used. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at: it follows the user's role. */
  is_admin?: InputMaybe<Scalars['Boolean']['input']>;
  /** How many requests it may make in a window; 0 for no limit. */
  rate_limit?: InputMaybe<Scalars['Int']['input']>;
  /** The resource policy; `default` is the only one. */
  resource_policy?: InputMaybe<Scalars['String']['input']>;
};

/** Changes to a rule. A field that is null keeps its value. */
export type ModifyPreloadRuleInput = {
  /** The one architecture whose images it loads; an empty text for each agent's own. */
  architecture?: InputMaybe<Scalars['String']['input']>;
  /** Whether the rule is in effect. */
  enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /** The pattern that selects the images. */
  images?: InputMaybe<Scalars['String']['input']>;
  /** The expression that selects the agents. */
  target_agents?: InputMaybe<Scalars['String']['input']>;
  /** The window's time zone; an empty text for the server's own. */
  time_zone?: InputMaybe<Scalars['String']['input']>;
  /** When it may begin to load; an empty text for always. */
  window?: InputMaybe<Scalars['String']['input']>;
};

/**
 * Changes to a retention rule. A field that is null keeps its value; any change but of `enabled` takes a confirmation
 * back.
 */
export type ModifyRetentionRuleInput = {
  /** Whether it may take more than half of what an agent has. */
  confirm?: InputMaybe<Scalars['Boolean']['input']>;
  /** Whether the rule is in effect. */
  enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /** The pattern for the images that it may take. */
  images?: InputMaybe<Scalars['String']['input']>;
  /** How many images of each repository stay; 0 for none. */
  keep_last?: InputMaybe<Scalars['Int']['input']>;
  /** The expression that selects the agents. */
  target_agents?: InputMaybe<Scalars['String']['input']>;
  /** The window's time zone; an empty text for the server's own. */
  time_zone?: InputMaybe<Scalars['String']['input']>;
  /** Whether to take images that the catalog does not know, too. */
  unknown_images?: InputMaybe<Scalars['Boolean']['input']>;
  /** Take until this is free, in bytes. */
  until?: InputMaybe<Scalars['BigInt']['input']>;
  /** How long an image must be unused, in seconds; 0 for no matter how long. */
  unused_for?: InputMaybe<Scalars['Int']['input']>;
  /** Take something only where less than this is free, in bytes; 0 for everywhere. */
  when_below?: InputMaybe<Scalars['BigInt']['input']>;
  /** When it may begin; an empty text for always. */
  window?: InputMaybe<Scalars['String']['input']>;
};

/** Changes to a scaling group. A field that is null keeps its value. */
export type ModifyScalingGroupInput = {
  /** A description for people. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  driver?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  driver_opts?: InputMaybe<Scalars['JSONString']['input']>;
  /** Whether it is active. An image is not visible through an inactive scaling group. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  is_public?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  scheduler?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  scheduler_opts?: InputMaybe<Scalars['JSONString']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  use_host_network?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  wsproxy_addr?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  wsproxy_api_token?: InputMaybe<Scalars['String']['input']>;
};

/** Changes to a user. A field that is null keeps its value. */
export type ModifyUserInput = {
  /** Refused: accounts are not bound to addresses. */
  allowed_client_ip?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_gids?: InputMaybe<Array<InputMaybe<Scalars['Int']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_main_gid?: InputMaybe<Scalars['Int']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_uid?: InputMaybe<Scalars['Int']['input']>;
  /** A description for admins. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** The domain that the user belongs to. Moving to another domain ends the user's memberships in groups. */
  domain_name?: InputMaybe<Scalars['String']['input']>;
  /** The person's name. */
  full_name?: InputMaybe<Scalars['String']['input']>;
  /** The ids of all groups that the user is to be a member of. */
  group_ids?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Another way to set the status: true for `active`, false for `inactive`. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Refused: the main access key is always the oldest keypair that may be used. */
  main_access_key?: InputMaybe<Scalars['String']['input']>;
  /** Whether the user must choose a new password. */
  need_password_change?: InputMaybe<Scalars['Boolean']['input']>;
  /** 8 to 1024 bytes. */
  password?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  resource_policy?: InputMaybe<Scalars['String']['input']>;
  /** `superadmin`, `admin`, `user` or `monitor`. */
  role?: InputMaybe<Scalars['String']['input']>;
  /** `active`, `inactive`, `before-verification` or `deleted`; it takes precedence over `is_active`. */
  status?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  sudo_session_enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /** Refused: there are no one-time passwords. */
  totp_activated?: InputMaybe<Scalars['Boolean']['input']>;
  /** A short name, unique regardless of case; empty for none. */
  username?: InputMaybe<Scalars['String']['input']>;
};

/** Options for purging an image. */
export type PurgeImageOptions = {
  /** Also delete the image's tag in the registry. */
  remove_from_registry?: Scalars['Boolean']['input'];
};

/** What else to delete with a user. */
export type PurgeUserInput = {
  /** Not looked at; accepted for Backend.AI's clients. */
  delegate_endpoint_ownership?: InputMaybe<Scalars['Boolean']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  purge_shared_vfolders?: InputMaybe<Scalars['Boolean']['input']>;
};

/**
 * A new user. Unless given otherwise, the user is active, has the role `user` and belongs to the caller's
 * domain.
 */
export type UserInput = {
  /** Refused: accounts are not bound to addresses. */
  allowed_client_ip?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_gids?: InputMaybe<Array<InputMaybe<Scalars['Int']['input']>>>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_main_gid?: InputMaybe<Scalars['Int']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  container_uid?: InputMaybe<Scalars['Int']['input']>;
  /** A description for admins. */
  description?: InputMaybe<Scalars['String']['input']>;
  /** The domain that the user belongs to. Moving to another domain ends the user's memberships in groups. */
  domain_name?: InputMaybe<Scalars['String']['input']>;
  /** The person's name. */
  full_name?: InputMaybe<Scalars['String']['input']>;
  /** The ids of all groups that the user is to be a member of. */
  group_ids?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>>>;
  /** Its id in an external system. */
  integration_id?: InputMaybe<Scalars['String']['input']>;
  /** Another way to set the status: true for `active`, false for `inactive`. */
  is_active?: InputMaybe<Scalars['Boolean']['input']>;
  /** Refused: the main access key is always the oldest keypair that may be used. */
  main_access_key?: InputMaybe<Scalars['String']['input']>;
  /** Whether the user must choose a new password. */
  need_password_change?: InputMaybe<Scalars['Boolean']['input']>;
  /** 8 to 1024 bytes. */
  password?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  resource_policy?: InputMaybe<Scalars['String']['input']>;
  /** `superadmin`, `admin`, `user` or `monitor`. */
  role?: InputMaybe<Scalars['String']['input']>;
  /** `active`, `inactive`, `before-verification` or `deleted`; it takes precedence over `is_active`. */
  status?: InputMaybe<Scalars['String']['input']>;
  /** Not looked at; accepted for Backend.AI's clients. */
  sudo_session_enabled?: InputMaybe<Scalars['Boolean']['input']>;
  /** Refused: there are no one-time passwords. */
  totp_activated?: InputMaybe<Scalars['Boolean']['input']>;
  /** A short name, unique regardless of case; empty for none. */
  username?: InputMaybe<Scalars['String']['input']>;
};

export type TaskLineFragment = { id: string, kind: string, state: string, subject: string, message: string, created_at: string, ended_at: string | null, current_progress: number, total_progress: number, target_agents: string | null, target_agents_folded: string | null, rule: string | null, ledger: { added: number, updated: number, unchanged: number, removed: number, skipped_count: number, failed_count: number } };

export type TasksQueryVariables = Exact<{
  limit?: InputMaybe<Scalars['Int']['input']>;
  offset?: InputMaybe<Scalars['Int']['input']>;
}>;


export type TasksQuery = { background_tasks: Array<{ id: string, kind: string, state: string, subject: string, message: string, created_at: string, ended_at: string | null, current_progress: number, total_progress: number, target_agents: string | null, target_agents_folded: string | null, rule: string | null, ledger: { added: number, updated: number, unchanged: number, removed: number, skipped_count: number, failed_count: number } }> | null };

export type AccountQueryVariables = Exact<{ [key: string]: never; }>;


export type AccountQuery = { user: { email: string | null, username: string | null, full_name: string | null, role: string | null, domain_name: string | null, main_access_key: string | null, need_password_change: boolean | null, groups: Array<{ id: string | null, name: string | null } | null> | null } | null, sessions: Array<{ created_at: string, last_seen: string, address: string | null, current: boolean }> };

export type SignOutEverywhereMutationVariables = Exact<{
  keep_current: Scalars['Boolean']['input'];
}>;


export type SignOutEverywhereMutation = { sign_out_everywhere: { ok: boolean | null, msg: string | null } };

export type AgentsQueryVariables = Exact<{ [key: string]: never; }>;


export type AgentsQuery = { agents: Array<{ id: string | null, status: string | null, status_reason: string | null, lost_at: string | null, architecture: string | null, engine: string | null, version: string | null, addr: string | null, scaling_group: string | null, schedulable: boolean | null, first_contact: string | null, free_bytes: number | null, total_bytes: number | null, images_bytes: number | null, labels: Array<{ key: string, value: string }> } | null> | null };

export type AgentImagesQueryVariables = Exact<{
  agent: Scalars['String']['input'];
  limit?: InputMaybe<Scalars['Int']['input']>;
}>;


export type AgentImagesQuery = { image_presence: Array<{ reference: string, architecture: string, digest: string, state: string }> };

export type ModifyAgentMutationVariables = Exact<{
  id: Scalars['String']['input'];
  props: ModifyAgentInput;
}>;


export type ModifyAgentMutation = { modify_agent: { ok: boolean | null, msg: string | null } | null };

export type AgentTokensQueryVariables = Exact<{ [key: string]: never; }>;


export type AgentTokensQuery = { agent_tokens: Array<{ id: string, state: string, agent: string | null, scaling_group: string | null, uses_left: number, used_by: string | null, expires_at: string }> };

export type CreateAgentTokenMutationVariables = Exact<{
  props: CreateAgentTokenInput;
}>;


export type CreateAgentTokenMutation = { create_agent_token: { ok: boolean | null, msg: string | null, token: string | null, agent_token: { expires_at: string } | null } | null };

export type RevokeAgentTokenMutationVariables = Exact<{
  id: Scalars['String']['input'];
}>;


export type RevokeAgentTokenMutation = { revoke_agent_token: { ok: boolean | null, msg: string | null } | null };

export type RemoveAgentMutationVariables = Exact<{
  id: Scalars['String']['input'];
}>;


export type RemoveAgentMutation = { remove_agent: { ok: boolean | null, msg: string | null } | null };

export type AuditLogQueryVariables = Exact<{
  action?: InputMaybe<Scalars['String']['input']>;
  before?: InputMaybe<Scalars['BigInt']['input']>;
  limit?: InputMaybe<Scalars['Int']['input']>;
  outcome?: InputMaybe<AuditOutcome>;
  target?: InputMaybe<Scalars['String']['input']>;
  user?: InputMaybe<Scalars['String']['input']>;
}>;


export type AuditLogQuery = { audit_log: { next: number | null, items: Array<{ number: number, at: string, count: number, last_at: string, other_targets: boolean, email: string, credential: string, address: string | null, action: string, target: string, outcome: AuditOutcome, reason: string | null }> } | null };

export type ImagesQueryVariables = Exact<{
  filter?: InputMaybe<Scalars['String']['input']>;
  order?: InputMaybe<Scalars['String']['input']>;
  first?: InputMaybe<Scalars['Int']['input']>;
  offset?: InputMaybe<Scalars['Int']['input']>;
}>;


export type ImagesQuery = { image_nodes: { count: number | null, edges: Array<{ node: { name: string | null, registry: string | null, tag: string | null, humanized_name: string | null, supported_accelerators: Array<string | null> | null } | null, architectures: Array<{ architecture: string | null, digest: string | null, size_bytes: number | null, installed: boolean | null, aliases: Array<string | null> | null } | null> } | null> } | null };

export type RegistryNamesQueryVariables = Exact<{ [key: string]: never; }>;


export type RegistryNamesQuery = { container_registries: Array<{ hostname: string | null } | null> | null };

export type PresenceImagesQueryVariables = Exact<{
  filter?: InputMaybe<Scalars['String']['input']>;
  first?: InputMaybe<Scalars['Int']['input']>;
  offset?: InputMaybe<Scalars['Int']['input']>;
}>;


export type PresenceImagesQuery = { image_nodes: { count: number | null, edges: Array<{ node: { name: string | null, registry: string | null, tag: string | null, architecture: string | null } | null } | null> } | null };

export type PresenceMatrixQueryVariables = Exact<{
  references: Array<Scalars['String']['input']> | Scalars['String']['input'];
}>;


export type PresenceMatrixQuery = { presence_matrix: { agents: Array<string>, architectures: Array<string | null>, rows: Array<{ reference: string, architecture: string, states: string }> } };

export type TaskAgentsQueryVariables = Exact<{
  id: Scalars['String']['input'];
}>;


export type TaskAgentsQuery = { background_task: { items: Array<{ agent: string | null, reference: string | null }> } | null };

export type RegistriesQueryVariables = Exact<{ [key: string]: never; }>;


export type RegistriesQuery = { container_registries: Array<{ hostname: string | null, config: { url: string, type: string, project: Array<string | null> | null, username: string | null, password: string | null, ssl_verify: boolean | null, is_global: boolean | null, ca_pem: string | null, trusted_hosts: Array<string>, kernelspec_only: boolean } | null } | null> | null };

export type CreateRegistryMutationVariables = Exact<{
  hostname: Scalars['String']['input'];
  props: CreateContainerRegistryInput;
}>;


export type CreateRegistryMutation = { create_container_registry: { container_registry: { hostname: string | null } | null } | null };

export type ModifyRegistryMutationVariables = Exact<{
  hostname: Scalars['String']['input'];
  props: ModifyContainerRegistryInput;
}>;


export type ModifyRegistryMutation = { modify_container_registry: { msg: string | null, container_registry: { hostname: string | null } | null } | null };

export type DeleteRegistryMutationVariables = Exact<{
  hostname: Scalars['String']['input'];
}>;


export type DeleteRegistryMutation = { delete_container_registry: { container_registry: { hostname: string | null } | null } | null };

export type TestRegistryMutationVariables = Exact<{
  hostname: Scalars['String']['input'];
}>;


export type TestRegistryMutation = { test_container_registry: { ok: boolean | null, msg: string | null } };

export type ImageCountQueryVariables = Exact<{
  filter?: InputMaybe<Scalars['String']['input']>;
}>;


export type ImageCountQuery = { image_nodes: { count: number | null } | null };

export type RulesQueryVariables = Exact<{ [key: string]: never; }>;


export type RulesQuery = { preload_rules: Array<{ name: string, images: string, target_agents: string, architecture: string | null, window: string | null, time_zone: string | null, effective_time_zone: string | null, enabled: boolean, state: string, opens_at: string | null, closes_at: string | null, modified_at: string, modified_by: string, status: { at: string, images: number, is_cut: boolean, agents: number, folded: string, unknown: Array<string>, unknown_count: number, away_count: number, present: number, missing: number, loading: number, due: number, held_back: number, unfit: number, begun_at: string | null, begun: number, task_ids: Array<string>, problem: string | null, away: Array<{ agent: string, reason: string }>, waiting: Array<{ agent: string, image: string, reason: string, until: string | null }> } | null }> };

export type RulePreviewQueryVariables = Exact<{
  images: Scalars['String']['input'];
  target_agents: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
  window?: InputMaybe<Scalars['String']['input']>;
  time_zone?: InputMaybe<Scalars['String']['input']>;
}>;


export type RulePreviewQuery = { preload_rule_preview: { ok: boolean, images: number, image_names: Array<string>, is_cut: boolean, agents: number, folded: string, left_out: number, unknown: Array<string>, unknown_count: number, away_count: number, present: number, missing: number, bytes: number, is_open: boolean, opens_at: string | null, effective_time_zone: string | null, problems: Array<{ field: string, message: string }> } };

export type CreateRuleMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: CreatePreloadRuleInput;
}>;


export type CreateRuleMutation = { create_preload_rule: { ok: boolean | null, msg: string | null } | null };

export type ModifyRuleMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: ModifyPreloadRuleInput;
}>;


export type ModifyRuleMutation = { modify_preload_rule: { ok: boolean | null, msg: string | null } | null };

export type DeleteRuleMutationVariables = Exact<{
  name: Scalars['String']['input'];
}>;


export type DeleteRuleMutation = { delete_preload_rule: { ok: boolean | null, msg: string | null } | null };

export type TaskQueryVariables = Exact<{
  id: Scalars['String']['input'];
  limit?: InputMaybe<Scalars['Int']['input']>;
  offset?: InputMaybe<Scalars['Int']['input']>;
}>;


export type TaskQuery = { background_task: { architecture: string | null, left_out: number, id: string, kind: string, state: string, subject: string, message: string, created_at: string, ended_at: string | null, current_progress: number, total_progress: number, target_agents: string | null, target_agents_folded: string | null, rule: string | null, ledger: { added: number, updated: number, unchanged: number, removed: number, skipped_count: number, failed_count: number, failed: Array<{ reference: string, reason: string, code: ErrorCode | null }>, skipped: Array<{ reference: string, reason: string, code: ErrorCode | null }> }, items: Array<{ name: string, agent: string | null, reference: string | null, state: string, attempts: number, current: number, total: number, speed: number | null, reason: string | null, started_at: string | null, ended_at: string | null, not_before: string | null }> } | null };

export type DomainsQueryVariables = Exact<{ [key: string]: never; }>;


export type DomainsQuery = { domains: Array<{ name: string | null, description: string | null, is_active: boolean | null, allowed_docker_registries: Array<string | null> | null, scaling_groups: Array<string | null> | null } | null> | null };

export type GroupsQueryVariables = Exact<{
  domain_name?: InputMaybe<Scalars['String']['input']>;
}>;


export type GroupsQuery = { groups: Array<{ id: string | null, name: string | null, description: string | null, is_active: boolean | null, domain_name: string | null, scaling_groups: Array<string | null> | null } | null> | null };

export type ScalingGroupsQueryVariables = Exact<{ [key: string]: never; }>;


export type ScalingGroupsQuery = { scaling_groups: Array<{ name: string | null, description: string | null, is_active: boolean | null, created_at: string | null } | null> | null };

export type UsersQueryVariables = Exact<{
  limit: Scalars['Int']['input'];
  offset: Scalars['Int']['input'];
}>;


export type UsersQuery = { user_list: { total_count: number | null, items: Array<{ uuid: string | null, email: string | null, username: string | null, full_name: string | null, role: string | null, status: string | null, domain_name: string | null, created_at: string | null, groups: Array<{ id: string | null, name: string | null } | null> | null } | null> | null } | null };

export type KeypairsQueryVariables = Exact<{
  limit: Scalars['Int']['input'];
  offset: Scalars['Int']['input'];
  email?: InputMaybe<Scalars['String']['input']>;
}>;


export type KeypairsQuery = { keypair_list: { total_count: number | null, items: Array<{ access_key: string | null, user_id: string | null, is_active: boolean | null, is_admin: boolean | null, created_at: string | null, last_used: string | null } | null> | null } | null };

export type TokensQueryVariables = Exact<{ [key: string]: never; }>;


export type TokensQuery = { api_tokens: Array<{ id: string, name: string, scope: string, created_at: string, expires_at: string, last_used: string | null }> };

export type SeenByQueryVariables = Exact<{
  scope?: InputMaybe<Scalars['ScopeField']['input']>;
  group?: InputMaybe<Scalars['String']['input']>;
  filter?: InputMaybe<Scalars['String']['input']>;
  first?: InputMaybe<Scalars['Int']['input']>;
}>;


export type SeenByQuery = { image_nodes: { count: number | null, edges: Array<{ node: { name: string | null, registry: string | null, tag: string | null, architecture: string | null, humanized_name: string | null } | null } | null> } | null };

export type CreateDomainMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: DomainInput;
}>;


export type CreateDomainMutation = { create_domain: { ok: boolean | null, msg: string | null } | null };

export type ModifyDomainMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: ModifyDomainInput;
}>;


export type ModifyDomainMutation = { modify_domain: { ok: boolean | null, msg: string | null } | null };

export type DeleteDomainMutationVariables = Exact<{
  name: Scalars['String']['input'];
}>;


export type DeleteDomainMutation = { delete_domain: { ok: boolean | null, msg: string | null } | null };

export type CreateGroupMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: GroupInput;
}>;


export type CreateGroupMutation = { create_group: { ok: boolean | null, msg: string | null } | null };

export type ModifyGroupMutationVariables = Exact<{
  gid: Scalars['UUID']['input'];
  props: ModifyGroupInput;
}>;


export type ModifyGroupMutation = { modify_group: { ok: boolean | null, msg: string | null } | null };

export type DeleteGroupMutationVariables = Exact<{
  gid: Scalars['UUID']['input'];
}>;


export type DeleteGroupMutation = { delete_group: { ok: boolean | null, msg: string | null } | null };

export type CreateScalingGroupMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: CreateScalingGroupInput;
}>;


export type CreateScalingGroupMutation = { create_scaling_group: { ok: boolean | null, msg: string | null } | null };

export type DeleteScalingGroupMutationVariables = Exact<{
  name: Scalars['String']['input'];
}>;


export type DeleteScalingGroupMutation = { delete_scaling_group: { ok: boolean | null, msg: string | null } | null };

export type AllowDomainMutationVariables = Exact<{
  scaling_group: Scalars['String']['input'];
  domain: Scalars['String']['input'];
}>;


export type AllowDomainMutation = { associate_scaling_group_with_domain: { ok: boolean | null, msg: string | null } | null };

export type DisallowDomainMutationVariables = Exact<{
  scaling_group: Scalars['String']['input'];
  domain: Scalars['String']['input'];
}>;


export type DisallowDomainMutation = { disassociate_scaling_group_with_domain: { ok: boolean | null, msg: string | null } | null };

export type AllowGroupMutationVariables = Exact<{
  scaling_group: Scalars['String']['input'];
  user_group: Scalars['UUID']['input'];
}>;


export type AllowGroupMutation = { associate_scaling_group_with_user_group: { ok: boolean | null, msg: string | null } | null };

export type DisallowGroupMutationVariables = Exact<{
  scaling_group: Scalars['String']['input'];
  user_group: Scalars['UUID']['input'];
}>;


export type DisallowGroupMutation = { disassociate_scaling_group_with_user_group: { ok: boolean | null, msg: string | null } | null };

export type CreateUserMutationVariables = Exact<{
  email: Scalars['String']['input'];
  props: UserInput;
}>;


export type CreateUserMutation = { create_user: { ok: boolean | null, msg: string | null } | null };

export type ModifyUserMutationVariables = Exact<{
  email: Scalars['String']['input'];
  props: ModifyUserInput;
}>;


export type ModifyUserMutation = { modify_user: { ok: boolean | null, msg: string | null } | null };

export type DeleteUserMutationVariables = Exact<{
  email: Scalars['String']['input'];
}>;


export type DeleteUserMutation = { delete_user: { ok: boolean | null, msg: string | null } | null };

export type CreateKeypairMutationVariables = Exact<{
  user_id: Scalars['String']['input'];
  props: KeyPairInput;
}>;


export type CreateKeypairMutation = { create_keypair: { ok: boolean | null, msg: string | null, keypair: { access_key: string | null, secret_key: string | null } | null } | null };

export type ModifyKeypairMutationVariables = Exact<{
  access_key: Scalars['String']['input'];
  props: ModifyKeyPairInput;
}>;


export type ModifyKeypairMutation = { modify_keypair: { ok: boolean | null, msg: string | null } | null };

export type DeleteKeypairMutationVariables = Exact<{
  access_key: Scalars['String']['input'];
}>;


export type DeleteKeypairMutation = { delete_keypair: { ok: boolean | null, msg: string | null } | null };

export type CreateTokenMutationVariables = Exact<{
  name: Scalars['String']['input'];
  scope: Scalars['String']['input'];
  expires_in_days?: InputMaybe<Scalars['Int']['input']>;
}>;


export type CreateTokenMutation = { create_api_token: { ok: boolean | null, msg: string | null, token: string | null } };

export type RevokeTokenMutationVariables = Exact<{
  id: Scalars['String']['input'];
}>;


export type RevokeTokenMutation = { revoke_api_token: { ok: boolean | null, msg: string | null } };

export type AgentSetQueryVariables = Exact<{
  expression: Scalars['String']['input'];
}>;


export type AgentSetQuery = { agent_set: { ok: boolean, folded: string | null, count: number, names: Array<string>, offline: Array<string>, error: { code: string, position: number, message: string, caret: string } | null } };

export type AgentChipsQueryVariables = Exact<{ [key: string]: never; }>;


export type AgentChipsQuery = { agents: Array<{ id: string | null, status: string | null, architecture: string | null, scaling_group: string | null, labels: Array<{ key: string, value: string }> } | null> | null };

export type PlanQueryVariables = Exact<{
  reference: Scalars['String']['input'];
  references?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>> | InputMaybe<Scalars['String']['input']>>;
  target_agents: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
}>;


export type PlanQuery = { preload_plan: { count: number, folded: string, bytes: number, agents: Array<{ agent: string, step: string, bytes: number, free_bytes: number | null, fits: boolean | null, problem: string | null, fits_with_room: boolean | null, room: Array<{ digest: string, names: Array<string> }> }> } | null };

export type ImageDetailsQueryVariables = Exact<{
  reference: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
}>;


export type ImageDetailsQuery = { image: { id: string | null, name: string | null, registry: string | null, tag: string | null, architecture: string | null, digest: string | null, manifest_digest: string | null, target_digest: string | null, size_bytes: number | null, humanized_name: string | null, created_at: string | null, aliases: Array<string | null> | null, installed: boolean | null, supported_accelerators: Array<string | null> | null, labels: Array<{ key: string | null, value: string | null } | null> | null, resource_limits: Array<{ key: string | null, min: string | null, max: string | null } | null> | null } | null };

export type ImageArchitecturesQueryVariables = Exact<{
  filter: Scalars['String']['input'];
}>;


export type ImageArchitecturesQuery = { image_nodes: { edges: Array<{ architectures: Array<{ architecture: string | null } | null> } | null> } | null };

export type ImagePlacesQueryVariables = Exact<{
  reference: Scalars['String']['input'];
}>;


export type ImagePlacesQuery = { image_presence: Array<{ agent: string, architecture: string, digest: string, state: string }>, agents: Array<{ id: string | null, architecture: string | null } | null> | null };

export type ExplainAccessQueryVariables = Exact<{
  reference: Scalars['String']['input'];
  user?: InputMaybe<Scalars['String']['input']>;
  group?: InputMaybe<Scalars['String']['input']>;
  scaling_group?: InputMaybe<Scalars['String']['input']>;
}>;


export type ExplainAccessQuery = { explain_image_access: { visible: boolean, conditions: Array<{ name: string, holds: boolean, value: string, remedy: string | null }> } };

export type WhoMaySeeQueryVariables = Exact<{ [key: string]: never; }>;


export type WhoMaySeeQuery = { user_list: { items: Array<{ email: string | null, groups: Array<{ name: string | null } | null> | null } | null> | null } | null, scaling_groups: Array<{ name: string | null } | null> | null };

export type AliasMutationVariables = Exact<{
  alias: Scalars['String']['input'];
  target: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
}>;


export type AliasMutation = { alias_image: { ok: boolean | null, msg: string | null } | null };

export type DealiasMutationVariables = Exact<{
  alias: Scalars['String']['input'];
}>;


export type DealiasMutation = { dealias_image: { ok: boolean | null, msg: string | null } | null };

export type ForgetMutationVariables = Exact<{
  reference: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
}>;


export type ForgetMutation = { forget_image: { ok: boolean | null, msg: string | null } | null };

export type ScanImageMutationVariables = Exact<{
  reference: Scalars['String']['input'];
}>;


export type ScanImageMutation = { scan_image: { ok: boolean | null, msg: string | null, task_id: string | null } | null };

export type PreloadMutationVariables = Exact<{
  reference: Scalars['String']['input'];
  references?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>> | InputMaybe<Scalars['String']['input']>>;
  target_agents: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
  make_room?: InputMaybe<Scalars['Boolean']['input']>;
}>;


export type PreloadMutation = { preload_image: { ok: boolean | null, msg: string | null, task_id: string | null } | null };

export type UnloadMutationVariables = Exact<{
  reference: Scalars['String']['input'];
  references?: InputMaybe<Array<InputMaybe<Scalars['String']['input']>> | InputMaybe<Scalars['String']['input']>>;
  target_agents: Scalars['String']['input'];
  architecture?: InputMaybe<Scalars['String']['input']>;
}>;


export type UnloadMutation = { unload_image: { ok: boolean | null, msg: string | null, task_id: string | null } | null };

export type RescanMutationVariables = Exact<{
  registry?: InputMaybe<Scalars['String']['input']>;
  confirm_removals?: InputMaybe<Scalars['Boolean']['input']>;
}>;


export type RescanMutation = { rescan_images: { ok: boolean | null, msg: string | null, task_id: string | null } | null };

export type CancelTaskMutationVariables = Exact<{
  id: Scalars['String']['input'];
}>;


export type CancelTaskMutation = { cancel_task: { ok: boolean | null, msg: string | null } };

export type RetentionQueryVariables = Exact<{ [key: string]: never; }>;


export type RetentionQuery = { retention_rules: Array<{ name: string, state: string, images: string, target_agents: string, keep_last: number | null, unused_for: number | null, when_below: number | null, until: number | null, unknown_images: boolean, window: string | null, effective_time_zone: string | null, enabled: boolean, confirmed: boolean, opens_at: string | null, modified_at: string, modified_by: string, status: { due: number, due_bytes: number, held_back: Array<string>, unknown: Array<string>, unknown_count: number, away_count: number, begun_at: string | null, begun: number, task_id: string | null, problem: string | null } | null }> };

export type RetentionPlanQueryVariables = Exact<{
  name: Scalars['String']['input'];
}>;


export type RetentionPlanQuery = { retention_plan: { count: number, frees_bytes: number, problem: string | null, agents: Array<{ agent: string, note: string | null, frees_bytes: number, images: Array<{ digest: string, names: Array<string>, frees_bytes: number, usage: { in_use: boolean | null, last_used_at: string | null, unused_since: string | null } }> }> } | null };

export type CreateRetentionMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: CreateRetentionRuleInput;
}>;


export type CreateRetentionMutation = { create_retention_rule: { ok: boolean | null, msg: string | null } | null };

export type ModifyRetentionMutationVariables = Exact<{
  name: Scalars['String']['input'];
  props: ModifyRetentionRuleInput;
}>;


export type ModifyRetentionMutation = { modify_retention_rule: { ok: boolean | null, msg: string | null } | null };

export type DeleteRetentionMutationVariables = Exact<{
  name: Scalars['String']['input'];
}>;


export type DeleteRetentionMutation = { delete_retention_rule: { ok: boolean | null, msg: string | null } | null };

export type AgentHoldsQueryVariables = Exact<{
  agent: Scalars['String']['input'];
}>;


export type AgentHoldsQuery = { agent_images: Array<{ digest: string, names: Array<string>, size_bytes: number, known: boolean, pinned: boolean, wanted_by: string | null, usage: { in_use: boolean | null, last_used_at: string | null, unused_since: string | null } }> };

export type UnknownImagesQueryVariables = Exact<{ [key: string]: never; }>;


export type UnknownImagesQuery = { unknown_images: Array<{ digest: string, names: Array<string>, size_bytes: number, folded: string, count: number, in_use: number, last_used_at: string | null, unused_since: string | null }> };

export type PinMutationVariables = Exact<{
  reference: Scalars['String']['input'];
  target_agents?: InputMaybe<Scalars['String']['input']>;
}>;


export type PinMutation = { pin_image: { ok: boolean | null, msg: string | null } | null };

export type UnpinMutationVariables = Exact<{
  reference: Scalars['String']['input'];
}>;


export type UnpinMutation = { unpin_image: { ok: boolean | null, msg: string | null } | null };

export class TypedDocumentString<TResult, TVariables>
  extends String
  implements DocumentTypeDecoration<TResult, TVariables>
{
  __apiType?: NonNullable<DocumentTypeDecoration<TResult, TVariables>['__apiType']>;
  private value: string;
  public __meta__?: Record<string, any> | undefined;

  constructor(value: string, __meta__?: Record<string, any> | undefined) {
    super(value);
    this.value = value;
    this.__meta__ = __meta__;
  }

  override toString(): string & DocumentTypeDecoration<TResult, TVariables> {
    return this.value;
  }
}
export const TaskLineFragmentDoc = new TypedDocumentString(`
    fragment TaskLine on BackgroundTask {
  id
  kind
  state
  subject
  message
  created_at
  ended_at
  current_progress
  total_progress
  target_agents
  target_agents_folded
  rule
  ledger {
    added
    updated
    unchanged
    removed
    skipped_count
    failed_count
  }
}
    `, {"fragmentName":"TaskLine"}) as unknown as TypedDocumentString<TaskLineFragment, unknown>;
export const TasksDocument = new TypedDocumentString(`
    query Tasks($limit: Int, $offset: Int) {
  background_tasks(limit: $limit, offset: $offset) {
    ...TaskLine
  }
}
    fragment TaskLine on BackgroundTask {
  id
  kind
  state
  subject
  message
  created_at
  ended_at
  current_progress
  total_progress
  target_agents
  target_agents_folded
  rule
  ledger {
    added
    updated
    unchanged
    removed
    skipped_count
    failed_count
  }
}`) as unknown as TypedDocumentString<TasksQuery, TasksQueryVariables>;
export const AccountDocument = new TypedDocumentString(`
    query Account {
  user {
    email
    username
    full_name
    role
    domain_name
    main_access_key
    need_password_change
    groups {
      id
      name
    }
  }
  sessions {
    created_at
    last_seen
    address
    current
  }
}
    `) as unknown as TypedDocumentString<AccountQuery, AccountQueryVariables>;
export const SignOutEverywhereDocument = new TypedDocumentString(`
    mutation SignOutEverywhere($keep_current: Boolean!) {
  sign_out_everywhere(keep_current: $keep_current) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<SignOutEverywhereMutation, SignOutEverywhereMutationVariables>;
export const AgentsDocument = new TypedDocumentString(`
    query Agents {
  agents {
    id
    status
    status_reason
    lost_at
    architecture
    engine
    version
    addr
    scaling_group
    schedulable
    first_contact
    labels {
      key
      value
    }
    free_bytes
    total_bytes
    images_bytes
  }
}
    `) as unknown as TypedDocumentString<AgentsQuery, AgentsQueryVariables>;
export const AgentImagesDocument = new TypedDocumentString(`
    query AgentImages($agent: String!, $limit: Int) {
  image_presence(agent: $agent, limit: $limit) {
    reference
    architecture
    digest
    state
  }
}
    `) as unknown as TypedDocumentString<AgentImagesQuery, AgentImagesQueryVariables>;
export const ModifyAgentDocument = new TypedDocumentString(`
    mutation ModifyAgent($id: String!, $props: ModifyAgentInput!) {
  modify_agent(id: $id, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyAgentMutation, ModifyAgentMutationVariables>;
export const AgentTokensDocument = new TypedDocumentString(`
    query AgentTokens {
  agent_tokens {
    id
    state
    agent
    scaling_group
    uses_left
    used_by
    expires_at
  }
}
    `) as unknown as TypedDocumentString<AgentTokensQuery, AgentTokensQueryVariables>;
export const CreateAgentTokenDocument = new TypedDocumentString(`
    mutation CreateAgentToken($props: CreateAgentTokenInput!) {
  create_agent_token(props: $props) {
    ok
    msg
    token
    agent_token {
      expires_at
    }
  }
}
    `) as unknown as TypedDocumentString<CreateAgentTokenMutation, CreateAgentTokenMutationVariables>;
export const RevokeAgentTokenDocument = new TypedDocumentString(`
    mutation RevokeAgentToken($id: String!) {
  revoke_agent_token(id: $id) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<RevokeAgentTokenMutation, RevokeAgentTokenMutationVariables>;
export const RemoveAgentDocument = new TypedDocumentString(`
    mutation RemoveAgent($id: String!) {
  remove_agent(id: $id) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<RemoveAgentMutation, RemoveAgentMutationVariables>;
export const AuditLogDocument = new TypedDocumentString(`
    query AuditLog($action: String, $before: BigInt, $limit: Int, $outcome: AuditOutcome, $target: String, $user: String) {
  audit_log(
    action: $action
    before: $before
    limit: $limit
    outcome: $outcome
    target: $target
    user: $user
  ) {
    next
    items {
      number
      at
      count
      last_at
      other_targets
      email
      credential
      address
      action
      target
      outcome
      reason
    }
  }
}
    `) as unknown as TypedDocumentString<AuditLogQuery, AuditLogQueryVariables>;
export const ImagesDocument = new TypedDocumentString(`
    query Images($filter: String, $order: String, $first: Int, $offset: Int) {
  image_nodes(
    filter: $filter
    order: $order
    first: $first
    offset: $offset
    one_per_name: true
  ) {
    count
    edges {
      node {
        name
        registry
        tag
        humanized_name
        supported_accelerators
      }
      architectures {
        architecture
        digest
        size_bytes
        installed
        aliases
      }
    }
  }
}
    `) as unknown as TypedDocumentString<ImagesQuery, ImagesQueryVariables>;
export const RegistryNamesDocument = new TypedDocumentString(`
    query RegistryNames {
  container_registries {
    hostname
  }
}
    `) as unknown as TypedDocumentString<RegistryNamesQuery, RegistryNamesQueryVariables>;
export const PresenceImagesDocument = new TypedDocumentString(`
    query PresenceImages($filter: String, $first: Int, $offset: Int) {
  image_nodes(filter: $filter, order: "name", first: $first, offset: $offset) {
    count
    edges {
      node {
        name
        registry
        tag
        architecture
      }
    }
  }
}
    `) as unknown as TypedDocumentString<PresenceImagesQuery, PresenceImagesQueryVariables>;
export const PresenceMatrixDocument = new TypedDocumentString(`
    query PresenceMatrix($references: [String!]!) {
  presence_matrix(references: $references) {
    agents
    architectures
    rows {
      reference
      architecture
      states
    }
  }
}
    `) as unknown as TypedDocumentString<PresenceMatrixQuery, PresenceMatrixQueryVariables>;
export const TaskAgentsDocument = new TypedDocumentString(`
    query TaskAgents($id: String!) {
  background_task(id: $id) {
    items(limit: 1000, is_final: false) {
      agent
      reference
    }
  }
}
    `) as unknown as TypedDocumentString<TaskAgentsQuery, TaskAgentsQueryVariables>;
export const RegistriesDocument = new TypedDocumentString(`
    query Registries {
  container_registries {
    hostname
    config {
      url
      type
      project
      username
      password
      ssl_verify
      is_global
      ca_pem
      trusted_hosts
      kernelspec_only
    }
  }
}
    `) as unknown as TypedDocumentString<RegistriesQuery, RegistriesQueryVariables>;
export const CreateRegistryDocument = new TypedDocumentString(`
    mutation CreateRegistry($hostname: String!, $props: CreateContainerRegistryInput!) {
  create_container_registry(hostname: $hostname, props: $props) {
    container_registry {
      hostname
    }
  }
}
    `) as unknown as TypedDocumentString<CreateRegistryMutation, CreateRegistryMutationVariables>;
export const ModifyRegistryDocument = new TypedDocumentString(`
    mutation ModifyRegistry($hostname: String!, $props: ModifyContainerRegistryInput!) {
  modify_container_registry(hostname: $hostname, props: $props) {
    msg
    container_registry {
      hostname
    }
  }
}
    `) as unknown as TypedDocumentString<ModifyRegistryMutation, ModifyRegistryMutationVariables>;
export const DeleteRegistryDocument = new TypedDocumentString(`
    mutation DeleteRegistry($hostname: String!) {
  delete_container_registry(hostname: $hostname) {
    container_registry {
      hostname
    }
  }
}
    `) as unknown as TypedDocumentString<DeleteRegistryMutation, DeleteRegistryMutationVariables>;
export const TestRegistryDocument = new TypedDocumentString(`
    mutation TestRegistry($hostname: String!) {
  test_container_registry(hostname: $hostname) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<TestRegistryMutation, TestRegistryMutationVariables>;
export const ImageCountDocument = new TypedDocumentString(`
    query ImageCount($filter: String) {
  image_nodes(filter: $filter, first: 1) {
    count
  }
}
    `) as unknown as TypedDocumentString<ImageCountQuery, ImageCountQueryVariables>;
export const RulesDocument = new TypedDocumentString(`
    query Rules {
  preload_rules {
    name
    images
    target_agents
    architecture
    window
    time_zone
    effective_time_zone
    enabled
    state
    opens_at
    closes_at
    modified_at
    modified_by
    status {
      at
      images
      is_cut
      agents
      folded
      unknown
      unknown_count
      away {
        agent
        reason
      }
      away_count
      present
      missing
      loading
      due
      held_back
      unfit
      waiting {
        agent
        image
        reason
        until
      }
      begun_at
      begun
      task_ids
      problem
    }
  }
}
    `) as unknown as TypedDocumentString<RulesQuery, RulesQueryVariables>;
export const RulePreviewDocument = new TypedDocumentString(`
    query RulePreview($images: String!, $target_agents: String!, $architecture: String, $window: String, $time_zone: String) {
  preload_rule_preview(
    images: $images
    target_agents: $target_agents
    architecture: $architecture
    window: $window
    time_zone: $time_zone
  ) {
    ok
    problems {
      field
      message
    }
    images
    image_names
    is_cut
    agents
    folded
    left_out
    unknown
    unknown_count
    away_count
    present
    missing
    bytes
    is_open
    opens_at
    effective_time_zone
  }
}
    `) as unknown as TypedDocumentString<RulePreviewQuery, RulePreviewQueryVariables>;
export const CreateRuleDocument = new TypedDocumentString(`
    mutation CreateRule($name: String!, $props: CreatePreloadRuleInput!) {
  create_preload_rule(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateRuleMutation, CreateRuleMutationVariables>;
export const ModifyRuleDocument = new TypedDocumentString(`
    mutation ModifyRule($name: String!, $props: ModifyPreloadRuleInput!) {
  modify_preload_rule(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyRuleMutation, ModifyRuleMutationVariables>;
export const DeleteRuleDocument = new TypedDocumentString(`
    mutation DeleteRule($name: String!) {
  delete_preload_rule(name: $name) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteRuleMutation, DeleteRuleMutationVariables>;
export const TaskDocument = new TypedDocumentString(`
    query Task($id: String!, $limit: Int, $offset: Int) {
  background_task(id: $id) {
    ...TaskLine
    architecture
    left_out
    ledger {
      failed {
        reference
        reason
        code
      }
      skipped {
        reference
        reason
        code
      }
    }
    items(limit: $limit, offset: $offset) {
      name
      agent
      reference
      state
      attempts
      current
      total
      speed
      reason
      started_at
      ended_at
      not_before
    }
  }
}
    fragment TaskLine on BackgroundTask {
  id
  kind
  state
  subject
  message
  created_at
  ended_at
  current_progress
  total_progress
  target_agents
  target_agents_folded
  rule
  ledger {
    added
    updated
    unchanged
    removed
    skipped_count
    failed_count
  }
}`) as unknown as TypedDocumentString<TaskQuery, TaskQueryVariables>;
export const DomainsDocument = new TypedDocumentString(`
    query Domains {
  domains {
    name
    description
    is_active
    allowed_docker_registries
    scaling_groups
  }
}
    `) as unknown as TypedDocumentString<DomainsQuery, DomainsQueryVariables>;
export const GroupsDocument = new TypedDocumentString(`
    query Groups($domain_name: String) {
  groups(domain_name: $domain_name) {
    id
    name
    description
    is_active
    domain_name
    scaling_groups
  }
}
    `) as unknown as TypedDocumentString<GroupsQuery, GroupsQueryVariables>;
export const ScalingGroupsDocument = new TypedDocumentString(`
    query ScalingGroups {
  scaling_groups {
    name
    description
    is_active
    created_at
  }
}
    `) as unknown as TypedDocumentString<ScalingGroupsQuery, ScalingGroupsQueryVariables>;
export const UsersDocument = new TypedDocumentString(`
    query Users($limit: Int!, $offset: Int!) {
  user_list(limit: $limit, offset: $offset) {
    total_count
    items {
      uuid
      email
      username
      full_name
      role
      status
      domain_name
      created_at
      groups {
        id
        name
      }
    }
  }
}
    `) as unknown as TypedDocumentString<UsersQuery, UsersQueryVariables>;
export const KeypairsDocument = new TypedDocumentString(`
    query Keypairs($limit: Int!, $offset: Int!, $email: String) {
  keypair_list(limit: $limit, offset: $offset, email: $email) {
    total_count
    items {
      access_key
      user_id
      is_active
      is_admin
      created_at
      last_used
    }
  }
}
    `) as unknown as TypedDocumentString<KeypairsQuery, KeypairsQueryVariables>;
export const TokensDocument = new TypedDocumentString(`
    query Tokens {
  api_tokens {
    id
    name
    scope
    created_at
    expires_at
    last_used
  }
}
    `) as unknown as TypedDocumentString<TokensQuery, TokensQueryVariables>;
export const SeenByDocument = new TypedDocumentString(`
    query SeenBy($scope: ScopeField, $group: String, $filter: String, $first: Int) {
  image_nodes(
    scope_id: $scope
    group: $group
    filter: $filter
    order: "name"
    first: $first
  ) {
    count
    edges {
      node {
        name
        registry
        tag
        architecture
        humanized_name
      }
    }
  }
}
    `) as unknown as TypedDocumentString<SeenByQuery, SeenByQueryVariables>;
export const CreateDomainDocument = new TypedDocumentString(`
    mutation CreateDomain($name: String!, $props: DomainInput!) {
  create_domain(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateDomainMutation, CreateDomainMutationVariables>;
export const ModifyDomainDocument = new TypedDocumentString(`
    mutation ModifyDomain($name: String!, $props: ModifyDomainInput!) {
  modify_domain(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyDomainMutation, ModifyDomainMutationVariables>;
export const DeleteDomainDocument = new TypedDocumentString(`
    mutation DeleteDomain($name: String!) {
  delete_domain(name: $name) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteDomainMutation, DeleteDomainMutationVariables>;
export const CreateGroupDocument = new TypedDocumentString(`
    mutation CreateGroup($name: String!, $props: GroupInput!) {
  create_group(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateGroupMutation, CreateGroupMutationVariables>;
export const ModifyGroupDocument = new TypedDocumentString(`
    mutation ModifyGroup($gid: UUID!, $props: ModifyGroupInput!) {
  modify_group(gid: $gid, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyGroupMutation, ModifyGroupMutationVariables>;
export const DeleteGroupDocument = new TypedDocumentString(`
    mutation DeleteGroup($gid: UUID!) {
  delete_group(gid: $gid) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteGroupMutation, DeleteGroupMutationVariables>;
export const CreateScalingGroupDocument = new TypedDocumentString(`
    mutation CreateScalingGroup($name: String!, $props: CreateScalingGroupInput!) {
  create_scaling_group(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateScalingGroupMutation, CreateScalingGroupMutationVariables>;
export const DeleteScalingGroupDocument = new TypedDocumentString(`
    mutation DeleteScalingGroup($name: String!) {
  delete_scaling_group(name: $name) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteScalingGroupMutation, DeleteScalingGroupMutationVariables>;
export const AllowDomainDocument = new TypedDocumentString(`
    mutation AllowDomain($scaling_group: String!, $domain: String!) {
  associate_scaling_group_with_domain(
    scaling_group: $scaling_group
    domain: $domain
  ) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<AllowDomainMutation, AllowDomainMutationVariables>;
export const DisallowDomainDocument = new TypedDocumentString(`
    mutation DisallowDomain($scaling_group: String!, $domain: String!) {
  disassociate_scaling_group_with_domain(
    scaling_group: $scaling_group
    domain: $domain
  ) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DisallowDomainMutation, DisallowDomainMutationVariables>;
export const AllowGroupDocument = new TypedDocumentString(`
    mutation AllowGroup($scaling_group: String!, $user_group: UUID!) {
  associate_scaling_group_with_user_group(
    scaling_group: $scaling_group
    user_group: $user_group
  ) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<AllowGroupMutation, AllowGroupMutationVariables>;
export const DisallowGroupDocument = new TypedDocumentString(`
    mutation DisallowGroup($scaling_group: String!, $user_group: UUID!) {
  disassociate_scaling_group_with_user_group(
    scaling_group: $scaling_group
    user_group: $user_group
  ) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DisallowGroupMutation, DisallowGroupMutationVariables>;
export const CreateUserDocument = new TypedDocumentString(`
    mutation CreateUser($email: String!, $props: UserInput!) {
  create_user(email: $email, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateUserMutation, CreateUserMutationVariables>;
export const ModifyUserDocument = new TypedDocumentString(`
    mutation ModifyUser($email: String!, $props: ModifyUserInput!) {
  modify_user(email: $email, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyUserMutation, ModifyUserMutationVariables>;
export const DeleteUserDocument = new TypedDocumentString(`
    mutation DeleteUser($email: String!) {
  delete_user(email: $email) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteUserMutation, DeleteUserMutationVariables>;
export const CreateKeypairDocument = new TypedDocumentString(`
    mutation CreateKeypair($user_id: String!, $props: KeyPairInput!) {
  create_keypair(user_id: $user_id, props: $props) {
    ok
    msg
    keypair {
      access_key
      secret_key
    }
  }
}
    `) as unknown as TypedDocumentString<CreateKeypairMutation, CreateKeypairMutationVariables>;
export const ModifyKeypairDocument = new TypedDocumentString(`
    mutation ModifyKeypair($access_key: String!, $props: ModifyKeyPairInput!) {
  modify_keypair(access_key: $access_key, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyKeypairMutation, ModifyKeypairMutationVariables>;
export const DeleteKeypairDocument = new TypedDocumentString(`
    mutation DeleteKeypair($access_key: String!) {
  delete_keypair(access_key: $access_key) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteKeypairMutation, DeleteKeypairMutationVariables>;
export const CreateTokenDocument = new TypedDocumentString(`
    mutation CreateToken($name: String!, $scope: String!, $expires_in_days: Int) {
  create_api_token(name: $name, scope: $scope, expires_in_days: $expires_in_days) {
    ok
    msg
    token
  }
}
    `) as unknown as TypedDocumentString<CreateTokenMutation, CreateTokenMutationVariables>;
export const RevokeTokenDocument = new TypedDocumentString(`
    mutation RevokeToken($id: String!) {
  revoke_api_token(id: $id) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<RevokeTokenMutation, RevokeTokenMutationVariables>;
export const AgentSetDocument = new TypedDocumentString(`
    query AgentSet($expression: String!) {
  agent_set(expression: $expression) {
    ok
    folded
    count
    names
    offline
    error {
      code
      position
      message
      caret
    }
  }
}
    `) as unknown as TypedDocumentString<AgentSetQuery, AgentSetQueryVariables>;
export const AgentChipsDocument = new TypedDocumentString(`
    query AgentChips {
  agents {
    id
    status
    architecture
    scaling_group
    labels {
      key
      value
    }
  }
}
    `) as unknown as TypedDocumentString<AgentChipsQuery, AgentChipsQueryVariables>;
export const PlanDocument = new TypedDocumentString(`
    query Plan($reference: String!, $references: [String], $target_agents: String!, $architecture: String) {
  preload_plan(
    reference: $reference
    references: $references
    target_agents: $target_agents
    architecture: $architecture
  ) {
    count
    folded
    bytes
    agents {
      agent
      step
      bytes
      free_bytes
      fits
      problem
      fits_with_room
      room {
        digest
        names
      }
    }
  }
}
    `) as unknown as TypedDocumentString<PlanQuery, PlanQueryVariables>;
export const ImageDetailsDocument = new TypedDocumentString(`
    query ImageDetails($reference: String!, $architecture: String) {
  image(reference: $reference, architecture: $architecture) {
    id
    name
    registry
    tag
    architecture
    digest
    manifest_digest
    target_digest
    size_bytes
    humanized_name
    created_at
    aliases
    installed
    supported_accelerators
    labels {
      key
      value
    }
    resource_limits {
      key
      min
      max
    }
  }
}
    `) as unknown as TypedDocumentString<ImageDetailsQuery, ImageDetailsQueryVariables>;
export const ImageArchitecturesDocument = new TypedDocumentString(`
    query ImageArchitectures($filter: String!) {
  image_nodes(filter: $filter, one_per_name: true, first: 1) {
    edges {
      architectures {
        architecture
      }
    }
  }
}
    `) as unknown as TypedDocumentString<ImageArchitecturesQuery, ImageArchitecturesQueryVariables>;
export const ImagePlacesDocument = new TypedDocumentString(`
    query ImagePlaces($reference: String!) {
  image_presence(reference: $reference) {
    agent
    architecture
    digest
    state
  }
  agents {
    id
    architecture
  }
}
    `) as unknown as TypedDocumentString<ImagePlacesQuery, ImagePlacesQueryVariables>;
export const ExplainAccessDocument = new TypedDocumentString(`
    query ExplainAccess($reference: String!, $user: String, $group: String, $scaling_group: String) {
  explain_image_access(
    reference: $reference
    user: $user
    group: $group
    scaling_group: $scaling_group
  ) {
    visible
    conditions {
      name
      holds
      value
      remedy
    }
  }
}
    `) as unknown as TypedDocumentString<ExplainAccessQuery, ExplainAccessQueryVariables>;
export const WhoMaySeeDocument = new TypedDocumentString(`
    query WhoMaySee {
  user_list(limit: 2000, offset: 0) {
    items {
      email
      groups {
        name
      }
    }
  }
  scaling_groups {
    name
  }
}
    `) as unknown as TypedDocumentString<WhoMaySeeQuery, WhoMaySeeQueryVariables>;
export const AliasDocument = new TypedDocumentString(`
    mutation Alias($alias: String!, $target: String!, $architecture: String) {
  alias_image(alias: $alias, target: $target, architecture: $architecture) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<AliasMutation, AliasMutationVariables>;
export const DealiasDocument = new TypedDocumentString(`
    mutation Dealias($alias: String!) {
  dealias_image(alias: $alias) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DealiasMutation, DealiasMutationVariables>;
export const ForgetDocument = new TypedDocumentString(`
    mutation Forget($reference: String!, $architecture: String) {
  forget_image(reference: $reference, architecture: $architecture) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ForgetMutation, ForgetMutationVariables>;
export const ScanImageDocument = new TypedDocumentString(`
    mutation ScanImage($reference: String!) {
  scan_image(reference: $reference) {
    ok
    msg
    task_id
  }
}
    `) as unknown as TypedDocumentString<ScanImageMutation, ScanImageMutationVariables>;
export const PreloadDocument = new TypedDocumentString(`
    mutation Preload($reference: String!, $references: [String], $target_agents: String!, $architecture: String, $make_room: Boolean) {
  preload_image(
    reference: $reference
    references: $references
    target_agents: $target_agents
    architecture: $architecture
    make_room: $make_room
  ) {
    ok
    msg
    task_id
  }
}
    `) as unknown as TypedDocumentString<PreloadMutation, PreloadMutationVariables>;
export const UnloadDocument = new TypedDocumentString(`
    mutation Unload($reference: String!, $references: [String], $target_agents: String!, $architecture: String) {
  unload_image(
    reference: $reference
    references: $references
    target_agents: $target_agents
    architecture: $architecture
  ) {
    ok
    msg
    task_id
  }
}
    `) as unknown as TypedDocumentString<UnloadMutation, UnloadMutationVariables>;
export const RescanDocument = new TypedDocumentString(`
    mutation Rescan($registry: String, $confirm_removals: Boolean) {
  rescan_images(registry: $registry, confirm_removals: $confirm_removals) {
    ok
    msg
    task_id
  }
}
    `) as unknown as TypedDocumentString<RescanMutation, RescanMutationVariables>;
export const CancelTaskDocument = new TypedDocumentString(`
    mutation CancelTask($id: String!) {
  cancel_task(id: $id) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CancelTaskMutation, CancelTaskMutationVariables>;
export const RetentionDocument = new TypedDocumentString(`
    query Retention {
  retention_rules {
    name
    state
    images
    target_agents
    keep_last
    unused_for
    when_below
    until
    unknown_images
    window
    effective_time_zone
    enabled
    confirmed
    opens_at
    modified_at
    modified_by
    status {
      due
      due_bytes
      held_back
      unknown
      unknown_count
      away_count
      begun_at
      begun
      task_id
      problem
    }
  }
}
    `) as unknown as TypedDocumentString<RetentionQuery, RetentionQueryVariables>;
export const RetentionPlanDocument = new TypedDocumentString(`
    query RetentionPlan($name: String!) {
  retention_plan(name: $name) {
    count
    frees_bytes
    problem
    agents {
      agent
      note
      frees_bytes
      images {
        digest
        names
        frees_bytes
        usage {
          in_use
          last_used_at
          unused_since
        }
      }
    }
  }
}
    `) as unknown as TypedDocumentString<RetentionPlanQuery, RetentionPlanQueryVariables>;
export const CreateRetentionDocument = new TypedDocumentString(`
    mutation CreateRetention($name: String!, $props: CreateRetentionRuleInput!) {
  create_retention_rule(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<CreateRetentionMutation, CreateRetentionMutationVariables>;
export const ModifyRetentionDocument = new TypedDocumentString(`
    mutation ModifyRetention($name: String!, $props: ModifyRetentionRuleInput!) {
  modify_retention_rule(name: $name, props: $props) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<ModifyRetentionMutation, ModifyRetentionMutationVariables>;
export const DeleteRetentionDocument = new TypedDocumentString(`
    mutation DeleteRetention($name: String!) {
  delete_retention_rule(name: $name) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<DeleteRetentionMutation, DeleteRetentionMutationVariables>;
export const AgentHoldsDocument = new TypedDocumentString(`
    query AgentHolds($agent: String!) {
  agent_images(agent_id: $agent) {
    digest
    names
    size_bytes
    known
    pinned
    wanted_by
    usage {
      in_use
      last_used_at
      unused_since
    }
  }
}
    `) as unknown as TypedDocumentString<AgentHoldsQuery, AgentHoldsQueryVariables>;
export const UnknownImagesDocument = new TypedDocumentString(`
    query UnknownImages {
  unknown_images {
    digest
    names
    size_bytes
    folded
    count
    in_use
    last_used_at
    unused_since
  }
}
    `) as unknown as TypedDocumentString<UnknownImagesQuery, UnknownImagesQueryVariables>;
export const PinDocument = new TypedDocumentString(`
    mutation Pin($reference: String!, $target_agents: String) {
  pin_image(reference: $reference, target_agents: $target_agents) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<PinMutation, PinMutationVariables>;
export const UnpinDocument = new TypedDocumentString(`
    mutation Unpin($reference: String!) {
  unpin_image(reference: $reference) {
    ok
    msg
  }
}
    `) as unknown as TypedDocumentString<UnpinMutation, UnpinMutationVariables>;