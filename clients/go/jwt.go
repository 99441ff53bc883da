package main

import (
	"crypto/rsa"
	"errors"
	"os"
	"strings"

	"github.com/golang-jwt/jwt/v4"
	"google.golang.org/protobuf/types/known/timestamppb"
	pb "guarded/scopegate/v1"
)

// verifier verifies JWTs. Without a public key, it accepts none.
type verifier struct {
	publicKey        *rsa.PublicKey
	issuer, audience string
}

type claims struct {
	jwt.RegisteredClaims
	CompanyID string `json:"company_id"`
	ClientID  string `json:"client_id"`
	Scope     string `json:"scope"`
}

func newVerifier() (*verifier, error) {
	path := os.Getenv("JWT_PUBLIC_KEY_FILE")
	v := &verifier{issuer: os.Getenv("JWT_ISSUER"), audience: os.Getenv("JWT_AUDIENCE")}
	if path == "" {
		return v, nil
	}
	if v.issuer == "" || v.audience == "" {
		return nil, errors.New("JWT_PUBLIC_KEY_FILE requires JWT_ISSUER and JWT_AUDIENCE")
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v.publicKey, err = jwt.ParseRSAPublicKeyFromPEM(pem)
	return v, err
}

func (v *verifier) verify(text string) (*pb.CheckRequest, error) {
	c, key := &claims{}, func(*jwt.Token) (any, error) { return v.publicKey, nil }
	if v.publicKey == nil {
		return nil, unauthenticated(invalidToken)
	}
	_, err := jwt.ParseWithClaims(text, c, key, jwt.WithValidMethods([]string{"RS256"}))
	if err != nil || !c.VerifyIssuer(v.issuer, true) || !c.VerifyAudience(v.audience, true) ||
		c.IssuedAt == nil || c.ExpiresAt == nil || c.ClientID == "" || c.CompanyID == "" {
		return nil, unauthenticated(invalidToken)
	}
	userID := c.Subject
	if userID == c.ClientID { // The client acts for itself: `sub` is the client and not a user (RFC 9068).
		userID = ""
	}
	return &pb.CheckRequest{CompanyId: c.CompanyID, CredentialId: c.ClientID, Token: &pb.Token{
		Audience:  v.audience,
		Scopes:    strings.Fields(c.Scope),
		IssuedAt:  timestamppb.New(c.IssuedAt.Time),
		ExpiresAt: timestamppb.New(c.ExpiresAt.Time),
		UserId:    userID,
	}}, nil
}
