import { expect, test } from "vitest";
import { filterOf } from "./imagefilter.ts";

const nothing = { text: "", registry: "", architecture: "", accelerator: "", installed: "", stale: "" };

test("nothing chosen asks for everything", () => {
  expect(filterOf(nothing)).toBeNull();
});

test("each word must be found, and each choice must hold", () => {
  expect(filterOf({ ...nothing, text: "py cuda", architecture: "x86_64", installed: "no" })).toBe(
    '(canonical ilike "%py%" | humanized_name ilike "%py%") & (canonical ilike "%cuda%" | humanized_name ilike "%cuda%")' +
      ' & architecture == "x86_64" & installed == false',
  );
});

test("what is typed can't leave its quotes, nor be a wildcard", () => {
  expect(filterOf({ ...nothing, registry: 'x" | name == "y' })).toBe('registry == "x\\" | name == \\"y"');
  expect(filterOf({ ...nothing, text: "50%_" })).toContain('"%50\\\\%\\\\_%"');
});
