import { afterEach, beforeEach } from "vitest";
import { testBegins, testEnds } from "./guests-of-a-test.ts";

beforeEach(testBegins);
afterEach(testEnds);
