package main

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	pb "guarded/scopegate/v1"
)

const (
	basicChallenge  = `Basic realm="api"`
	bearerChallenge = `Bearer realm="api"`
	invalidToken    = bearerChallenge + `, error="invalid_token"`
)

// unauthenticated is the error for no credentials, or wrong ones: the value of WWW-Authenticate.
type unauthenticated string

func (challenge unauthenticated) Error() string {
	return "unauthenticated"
}

// authenticate turns the Authorization header into the company, the credential and the token facts
// of a check. Its error is unauthenticated, or a gRPC status if scopegate cannot verify the secret.
func authenticate(s *scopegate, jwts *verifier, r *http.Request) (*pb.CheckRequest, error) {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	value = strings.TrimSpace(value)
	switch {
	case strings.EqualFold(scheme, "Basic"):
		clientID, secret, ok := r.BasicAuth()
		if !ok || clientID == "" { // An empty credential_id would verify a secret of any credential.
			return nil, unauthenticated(basicChallenge)
		}
		return verifySecret(s, r, clientID, secret, basicChallenge)
	case !strings.EqualFold(scheme, "Bearer"):
		return nil, unauthenticated(bearerChallenge + ", " + basicChallenge)
	case strings.HasPrefix(value, "sgs_"): // The prefix of all secrets. The secret alone identifies the client.
		return verifySecret(s, r, "", value, invalidToken)
	default:
		return jwts.verify(value)
	}
}

func verifySecret(s *scopegate, r *http.Request, clientID, secret, challenge string) (*pb.CheckRequest, error) {
	if !utf8.ValidString(clientID + secret) { // Protocol buffers cannot encode it.
		return nil, unauthenticated(challenge)
	}
	ctx, cancel := s.call(r.Context())
	defer cancel()
	response, err := s.directory.VerifySecret(ctx, &pb.VerifySecretRequest{CredentialId: clientID, Secret: secret})
	if status.Code(err) == codes.InvalidArgument { // The client id is not a valid id.
		return nil, unauthenticated(challenge)
	}
	if err != nil {
		return nil, err
	}
	if !response.Verified {
		return nil, unauthenticated(challenge)
	}
	return &pb.CheckRequest{CompanyId: response.CompanyId, CredentialId: response.CredentialId}, nil
}
