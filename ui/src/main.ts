import { mount } from "svelte";
import App from "./App.svelte";
import "./theme.css";
import { theme } from "./api/theme.svelte.ts";

theme.apply();
const target = document.getElementById("app");
if (target) mount(App, { target });
