/**
 * Whose word counts for a migration. NATS lets only coordinators say commands; each side of a migration still takes them from that
 * migration's own coordinator alone: the one that said the highest term so far. Under one term there is one coordinator, since
 * a term is won by compare-and-set; so another one that speaks under the same term is none.
 */
import type { Route } from "./subjects.ts";

/** What a side knows of its migration's coordinator. */
export interface Authority {
  term: number;
  /** The incarnation that spoke under this term; null: a former life of this process heard it, and only the term was kept. */
  coordinator: string | null;
}

interface Said extends Route {
  readonly term: number;
  readonly coordinator: string;
}

/** Why a command does not count, as a sentence; null: it does. `route`: this side's own. */
export const whyNotOurs = (authority: Authority, route: Route, command: Said): string | null => {
  const said = `coordinator ${command.coordinator} speaks for migration ${command.migration} under term ${command.term}`;
  if (command.source !== route.source || command.destination !== route.destination)
    return `${said} from ${command.source} to ${command.destination}, which goes from ${route.source} to ${route.destination} here`;
  if (command.term < authority.term) return `${said}, and term ${authority.term} is known already`;
  if (
    command.term === authority.term &&
    authority.coordinator !== null &&
    command.coordinator !== authority.coordinator
  )
    return `${said}, which is coordinator ${authority.coordinator}'s`;
  return null;
};

/** The command counts: from now on nothing counts that is older, or another's. */
export const obey = (authority: Authority, { term, coordinator }: Said): void => {
  authority.term = term;
  authority.coordinator = coordinator;
};
