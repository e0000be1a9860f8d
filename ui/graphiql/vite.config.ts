import { defineConfig, type Plugin } from "vite";

/** GraphiQL's fonts are in its style as data, which the server's policy forbids and the page has no use for. */
const withoutFonts: Plugin = {
  name: "without-fonts",
  enforce: "pre",
  transform(code, id) {
    return id.endsWith(".css") ? code.replace(/@font-face\s*\{[^}]*\}/g, "") : undefined;
  },
};

export default defineConfig({
  root: import.meta.dirname,
  publicDir: false,
  plugins: [withoutFonts],
  define: { "process.env.NODE_ENV": '"production"' },
  build: {
    outDir: "../dist",
    emptyOutDir: false,
    target: "es2023",
    reportCompressedSize: false,
    assetsInlineLimit: 0,
    lib: { entry: "main.tsx", formats: ["es"], fileName: () => "graphiql.js", cssFileName: "graphiql" },
    rolldownOptions: {
      output: { codeSplitting: false },
      // "use client" is for servers that render.
      onLog: (level, log, handler) => (log.code === "MODULE_LEVEL_DIRECTIVE" ? undefined : handler(level, log)),
    },
  },
});
