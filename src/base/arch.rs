//! Names of processor architectures, in one spelling.

/// The architecture that a reference without one means (Backend.AI's default from 22.03 on).
pub(crate) const DEFAULT: &str = "x86_64";

/// The catalog's name for an architecture, from an OCI platform (`amd64`, variant `v3`), a kernel (`aarch64`)
/// or a person (`arm64`). Variants that are other instruction sets stay apart: `armv6l` and `armv7l`, `x86_64_v3`.
pub(crate) fn normalize(architecture: &str, variant: Option<&str>) -> String {
    let architecture = architecture.trim().to_ascii_lowercase();
    match (architecture.as_str(), variant.unwrap_or_default()) {
        ("amd64" | "x86_64" | "x64" | "x86-64", "" | "v1") => "x86_64".into(),
        ("amd64" | "x86_64" | "x64" | "x86-64", v) => format!("x86_64_{v}"),
        ("arm64" | "aarch64", "" | "v8" | "8") => "aarch64".into(),
        ("arm64" | "aarch64", v) => format!("aarch64_{v}"),
        ("arm", "v5") => "armv5l".into(),
        ("arm", "v6") => "armv6l".into(),
        ("arm" | "armhf", _) => "armv7l".into(),
        ("386" | "i386" | "i686" | "x32" | "x86", _) => "x86".into(),
        (_, "") => architecture,
        (_, v) => format!("{architecture}_{v}"),
    }
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
            ("arm", Some("v6"), "armv6l"),
            ("arm", Some("v7"), "armv7l"),
            ("386", None, "x86"),
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
