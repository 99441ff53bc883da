"""Drives a server by the contract's names, found through server reflection."""

import os
import re
import signal
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Client:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address)
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def call(self, name, **request):
        service, method = name.split("/")
        found = self.pool.FindServiceByName(f"scopegate.v1.{service}").FindMethodByName(method)
        ask = message_factory.GetMessageClass(found.input_type)
        answer = message_factory.GetMessageClass(found.output_type)
        rpc = self.channel.unary_unary(
            f"/scopegate.v1.{service}/{method}",
            request_serializer=ask.SerializeToString,
            response_deserializer=answer.FromString,
        )
        answer = rpc(json_format.ParseDict(request, ask()), timeout=10)
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    def refused(self, name, **request):
        try:
            self.call(name, **request)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        raise AssertionError(f"{name} was not refused")


def story(client):
    services = set(client.database.get_services())
    for service in ["Authorization", "Directory", "Catalog", "Change"]:
        assert f"scopegate.v1.{service}Service" in services, services
    acme = {"company_id": "acme"}
    hr = {**acme, "credential_id": "hr"}

    def check(*scopes):
        return client.call("AuthorizationService/Check", **hr, scopes=scopes)

    made = client.call("DirectoryService/CreateCompany", **acme)
    assert len(made["company"]["scopes"]) == 12, "all scopes by default"
    few = {"company_id": "few", "scopes": {"names": ["users:read"]}}
    made = client.call("DirectoryService/CreateCompany", **few)
    assert [s["scope"] for s in made["company"]["scopes"]] == ["users:read"]
    client.call("DirectoryService/CreateCredential", **hr, label="HR", scopes=["users:read"])
    assert check("users:read")["decision"] == "DECISION_ALLOWED"
    client.call("AuthorizationService/GrantScopes", **hr, scopes=["users:write"])
    restrict = {**acme, "scopes": ["users:write"]}
    stale = client.call("AuthorizationService/RestrictCompanyScopes", **restrict, validate_only=True)
    other = {**acme, "credential_id": "other", "scopes": ["users:write"]}
    client.call("DirectoryService/CreateCredential", **other)
    code, _ = client.refused("AuthorizationService/RestrictCompanyScopes", **restrict)
    assert code == "FAILED_PRECONDITION", code
    code, _ = client.refused(
        "AuthorizationService/RestrictCompanyScopes", **restrict, etag=stale["etag"]
    )
    assert code == "ABORTED", code
    report = client.call("AuthorizationService/RestrictCompanyScopes", **restrict, validate_only=True)
    assert [c["credential_id"] for c in report["affected_credentials"]] == ["hr", "other"]
    client.call("AuthorizationService/RestrictCompanyScopes", **restrict, etag=report["etag"])
    assert check("users:write")["reason"] == "REASON_SCOPE_NOT_IN_COMPANY"
    code, said = client.refused("AuthorizationService/GrantScopes", **hr, scopes=["users:write"])
    assert code == "FAILED_PRECONDITION" and "users:write" in said, said
    client.call("AuthorizationService/AddCompanyScopes", **restrict)
    assert check("users:write")["reason"] == "REASON_GRANT_DORMANT"
    client.call("AuthorizationService/ResetScopes", **hr)
    assert check("users:write", "paths:bulk")["decision"] == "DECISION_ALLOWED"
    changes = client.call("ChangeService/ListChanges")["changes"]
    assert [int(c["revision"]) for c in changes] == list(range(1, len(changes) + 1))
    assert "scopes:" in client.call("CatalogService/GetCatalog")["yaml"]


def main():
    binary = "target/release/scopegate"
    arguments = ["serve", "--catalog", "catalogs/360learning.yaml", "--listen", "127.0.0.1:0"]
    data = tempfile.mkdtemp()
    env = dict(os.environ, NO_COLOR="1")
    server = subprocess.Popen(
        [binary, *arguments, "--data-dir", data], stderr=subprocess.PIPE, text=True, env=env
    )
    for line in server.stderr:
        if found := re.search(r"serving address=(\S+)", line):
            break
    else:
        sys.exit("the server ended")
    story(Client(found[1]))
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    print("the story holds")


main()
