// The OpenID provider of the suite `oidc`: `node provider.mjs <port> <redirect> <secret> <alg>`, at http://localhost:<port>.
// Its pages for signing in are those that the package brings for trying things out: they take any password. It makes its key when
// it starts, so that one that is started again has another.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { Provider } from "oidc-provider";

const [port, redirect, secret, alg] = process.argv.slice(2);
const made = alg === "ES256"
  ? generateKeyPairSync("ec", { namedCurve: "P-256" })
  : generateKeyPairSync("rsa", { modulusLength: 2048 });
const key = { ...made.privateKey.export({ format: "jwk" }), kid: randomUUID(), alg, use: "sig" };

// Who can sign in, by what they type, which is the subject too, and what the provider says of them.
const people = {
  olga: { preferred_username: "olga.o", name: "Olga <b>Ops</b>", groups: ["dc-operators", "staff"] },
  mia: { preferred_username: "mia.m", name: "Mia Member", groups: ["team-web"] },
  mallory: { preferred_username: "mallory.m", name: "Mallory", groups: ["staff"] },
};

async function findAccount(_context, login) {
  return { accountId: login, claims: async () => ({ sub: login, ...people[login] }) };
}

const provider = new Provider(`http://localhost:${port}`, {
  clients: [{
    client_id: "billet",
    client_secret: secret,
    redirect_uris: [redirect],
    response_types: ["code"],
    grant_types: ["authorization_code"],
    id_token_signed_response_alg: alg,
  }],
  // As OpenID Connect Core, 5.4, has it: these are told at the UserInfo endpoint, not in the ID token.
  claims: { openid: ["sub"], profile: ["name", "preferred_username", "groups"] },
  cookies: { keys: [secret] },
  findAccount,
  jwks: { keys: [key] },
  pkce: { required: () => true },
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
