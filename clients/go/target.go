package main

import (
	"errors"
	"net/url"
	"strings"

	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// target is where a connection leads: the name for gRPC, and the resolver of this name.
type target struct {
	name     string
	resolver resolver.Builder
	tls      bool
}

// parse reads the URLs of scopegate, which are separated by commas.
func parse(endpoints string) (target, error) {
	var addresses []resolver.Address
	schemes := map[string]bool{}
	for _, endpoint := range strings.Split(endpoints, ",") {
		server, err := url.Parse(strings.TrimSpace(endpoint))
		if err != nil {
			return target{}, err
		}
		schemes[server.Scheme] = true
		addresses = append(addresses, resolver.Address{Addr: server.Host, ServerName: server.Hostname()})
	}
	if len(schemes) > 1 || !schemes["https"] && !schemes["http"] {
		return target{}, errors.New("SCOPEGATE_ENDPOINT must begin with https:// or http://")
	}
	list := manual.NewBuilderWithScheme("scopegate")
	list.InitialState(resolver.State{Addresses: addresses})
	name := "scopegate:///" + addresses[0].Addr
	if len(addresses) == 1 { // A name can have several addresses.
		name = "dns:///" + addresses[0].Addr
	}
	return target{name, list, schemes["https"]}, nil
}
