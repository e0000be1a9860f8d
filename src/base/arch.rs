//! Names of processor architectures, in one spelling.

/// The architecture that a reference without one means (Backend.AI's default from 22.03 on).
pub(crate) const DEFAULT: &str = "x86_64";

/// The catalog's name for an architecture, from an OCI platform (`amd64`, variant `v3`), a kernel (`aarch64`)
/// or a person (`arm64`). Variants that are other instruction sets stay apart: `armv6l` and `armv7l`, `x86_64_v3`.
/// The meaning of a name without a variant, and of old names, is containerd's.
pub(crate) fn normalize(architecture: &str, variant: Option<&str>) -> String {
    let architecture = architecture.trim().to_ascii_lowercase();
    let variant = variant.unwrap_or_default().trim().to_ascii_lowercase();
    match architecture.as_str() {
        "amd64" | "x86_64" | "x64" | "x86-64" => match level(&variant) {
            "" | "1" => "x86_64".into(),
            level => format!("x86_64_v{level}"),
        },
        "arm64" | "aarch64" => match level(&variant) {
            "" | "8" | "8.0" => "aarch64".into(),
            level => format!("aarch64_v{level}"),
        },
        "arm" | "armhf" => arm(level(&variant), "7"),
        "armel" => arm(level(&variant), "6"),
        "386" | "i386" | "i486" | "i586" | "i686" | "x32" | "x86" => "x86".into(),
        name if name.starts_with("armv") => arm(level(name), "7"),
        _ if variant.is_empty() => architecture,
        _ => format!("{architecture}_{variant}"),
    }
}

/// The name of a 32-bit ARM of this level.
fn arm(level: &str, default: &str) -> String {
    format!("armv{}l", if level.is_empty() { default } else { level })
}

/// The number in a variant: `7` in `7`, `v7`, `v7l`, `armv7` and `armv7hf`, `8.2` in `v8.2`. A variant without a number
/// says nothing that is known.
fn level(variant: &str) -> &str {
    let start = variant.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let end = start.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(start.len());
    start.get(..end).unwrap_or_default()
}

/// The catalog's name for an architecture as a person writes it: `aarch64`, `arm64`, `linux/arm64/v8`.
pub(crate) fn named(text: &str) -> String {
    let text = text.trim();
    let platform = text.strip_prefix("linux/").unwrap_or(text);
    match platform.split_once('/') {
        Some((architecture, variant)) => normalize(architecture, Some(variant.trim())),
        None => normalize(platform, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{named, normalize};

    #[test]
    fn architectures_have_one_spelling() {
        for (given, variant, expected) in [
            ("amd64", None, "x86_64"),
            ("AMD64", Some("v1"), "x86_64"),
            ("amd64", Some("v3"), "x86_64_v3"),
            ("arm64", Some("v8"), "aarch64"),
            ("amd64", Some("2"), "x86_64_v2"),
            ("x86-64", Some("V3"), "x86_64_v3"),
            ("arm64", Some("V8"), "aarch64"),
            ("arm64", Some("8"), "aarch64"),
            ("aarch64", Some("v9"), "aarch64_v9"),
            ("arm64", Some("v8.2"), "aarch64_v8.2"),
            ("arm", Some("v6"), "armv6l"),
            ("arm", Some("6"), "armv6l"),
            ("arm", Some("v6l"), "armv6l"),
            ("arm", Some("armv6"), "armv6l"),
            ("arm", Some("V6"), "armv6l"),
            ("arm", Some("armv6hf"), "armv6l"),
            ("arm", Some("5"), "armv5l"),
            ("arm", Some("v5te"), "armv5l"),
            ("armel", None, "armv6l"),
            ("armel", Some("v5"), "armv5l"),
            ("arm", Some("v7"), "armv7l"),
            ("arm", Some("v7l"), "armv7l"),
            ("arm", Some("v7a"), "armv7l"),
            ("arm", Some("v8"), "armv8l"),
            ("arm", None, "armv7l"),
            ("arm", Some(""), "armv7l"),
            ("armhf", None, "armv7l"),
            ("armv6l", None, "armv6l"),
            ("armv7", None, "armv7l"),
            ("armv5tel", None, "armv5l"),
            ("i586", None, "x86"),
            ("386", None, "x86"),
            ("s390x", Some("z15"), "s390x_z15"),
            ("ppc64le", None, "ppc64le"),
        ] {
            assert_eq!(normalize(given, variant), expected, "{given} {variant:?}");
        }
    }

    #[test]
    fn a_person_may_write_an_architecture_in_any_common_way() {
        for (given, expected) in [
            ("arm64", "aarch64"),
            (" AArch64 ", "aarch64"),
            ("linux/arm64", "aarch64"),
            ("linux/arm64/v8", "aarch64"),
            ("arm/v7", "armv7l"),
            ("linux/amd64", "x86_64"),
            ("x86-64", "x86_64"),
            ("ppc64le", "ppc64le"),
        ] {
            assert_eq!(named(given), expected, "{given}");
        }
    }
}
