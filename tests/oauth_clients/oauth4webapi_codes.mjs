// oauth4webapi gets tokens by authorization codes: arguments are the server's URL, the client's id and its
// secret. The platform's page is the command that SCOPEGATE_BINARY names.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import * as oauth from 'oauth4webapi'

const [url, id, secret] = process.argv.slice(2)
const insecure = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(url)
const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
const as = await oauth.processDiscoveryResponse(issuer, found)
const client = { client_id: id }
const [read, manage] = ['read_personal_account', 'manage_personal_account']
const redirectUri = 'https://app.example.org/callback'

// Where the page sends the browser after the user has given these scopes.
const page = (request, given) => {
  const asked = request.searchParams
  assert.equal(asked.get('response_type'), 'code')
  assert.equal(asked.get('code_challenge_method'), 'S256')
  const words = ['authorization-code', 'create', 'league', asked.get('client_id'), 'ref', ...given]
  words.push('--redirect-uri', asked.get('redirect_uri'), '--state', asked.get('state'))
  words.push('--code-challenge', asked.get('code_challenge'), '--output', 'json')
  return new URL(JSON.parse(execFileSync(process.env.SCOPEGATE_BINARY, words)).redirectTo)
}

for (const auth of [oauth.ClientSecretBasic(secret), oauth.ClientSecretPost(secret)]) {
  const [verifier, state] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState()]
  const request = new URL(as.authorization_endpoint)
  request.search = new URLSearchParams({
    response_type: 'code',
    client_id: id,
    redirect_uri: redirectUri,
    scope: `${read} ${manage}`,
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
  })
  const redeem = async (parameters) => {
    const response = await oauth.authorizationCodeGrantRequest(
      as, client, auth, parameters, redirectUri, verifier, insecure,
    )
    return oauth.processAuthorizationCodeResponse(as, client, response)
  }
  const isActive = async (token) => {
    const response = await oauth.introspectionRequest(as, client, auth, token.access_token, insecure)
    return (await oauth.processIntrospectionResponse(as, client, response)).active
  }

  const redirectTo = page(request, [read])
  // The library compares `state`, and `iss` because the metadata announces it.
  const changed = (name, value) => {
    const other = new URL(redirectTo)
    value ? other.searchParams.set(name, value) : other.searchParams.delete(name)
    return other
  }
  for (const other of [
    changed('state', 'another'),
    changed('state'),
    changed('iss', 'https://other.example.org'),
    changed('iss'),
  ]) {
    assert.throws(() => oauth.validateAuthResponse(as, client, other, state), /unexpected|missing/)
  }
  const parameters = oauth.validateAuthResponse(as, client, redirectTo, state)
  const token = await redeem(parameters)
  assert.equal(token.scope, read)
  assert.equal(await isActive(token), true)
  await assert.rejects(redeem(parameters), { error: 'invalid_grant' })
  assert.equal(await isActive(token), false)

  const denied = page(request, [])
  assert.throws(() => oauth.validateAuthResponse(as, client, denied, state), {
    error: 'access_denied',
  })
}
console.log('oauth4webapi: tokens by codes, state and iss, a code that is used again, a user who refuses')
