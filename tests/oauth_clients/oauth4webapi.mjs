// oauth4webapi against a server: arguments are its URL, the client's id and its secret.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'

const [url, id, secret] = process.argv.slice(2)
const insecure = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(url)
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
const as = await oauth.processDiscoveryResponse(issuer, found)
const client = { client_id: id }

for (const auth of [oauth.ClientSecretBasic(secret), oauth.ClientSecretPost(secret)]) {
  const ask = async (parameters) => {
    const response = await oauth.clientCredentialsGrantRequest(as, client, auth, parameters, insecure)
    return oauth.processClientCredentialsResponse(as, client, response)
  }
  const token = await ask({ audience: 'public', scope: 'api/read api/write' })
  assert.equal(token.scope, 'api/read')
  const request = new Request('https://api.example.org/', {
    headers: { authorization: `Bearer ${token.access_token}` },
  })
  const claims = await oauth.validateJwtAccessToken(as, request, 'public', insecure)
  assert.equal(claims.company_id, 'acme')

  const introspect = async () => {
    const response = await oauth.introspectionRequest(as, client, auth, token.access_token, insecure)
    return oauth.processIntrospectionResponse(as, client, response)
  }
  assert.equal((await introspect()).scope, 'api/read')
  const revoked = await oauth.revocationRequest(as, client, auth, token.access_token, insecure)
  await oauth.processRevocationResponse(revoked)
  assert.equal((await introspect()).active, false)

  await assert.rejects(ask({ audience: 'public', scope: 'api/write' }), { error: 'invalid_scope' })
  await assert.rejects(ask({ audience: 'none' }), { error: 'invalid_target' })
  await assert.rejects(ask({}), { error: 'invalid_request' })
}
const wrong = oauth.ClientSecretBasic('x')
const refused = await oauth.clientCredentialsGrantRequest(as, client, wrong, {}, insecure)
await assert.rejects(oauth.processClientCredentialsResponse(as, client, refused), (error) => {
  const challenge = error.cause?.[0]
  return challenge?.scheme === 'basic' && challenge.parameters.realm === 'scopegate'
})
console.log('oauth4webapi: discovery, tokens, signatures, introspection, revocation, errors')
