/** The pages for super-admins only, by the first part of their address: what they ask is refused to everybody else. */
export const GUARDED = new Set(["presence", "agents", "registries", "rules", "tasks", "audit"]);
