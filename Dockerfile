# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# A static binary with glibc instead of musl, for an image that contains nothing else.
RUN target="$(rustc --print host-tuple)" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" \
 && cp "target/$target/release/scopegate" /scopegate \
 && mkdir -m 700 /data

FROM scratch
COPY --from=build /scopegate /scopegate
COPY --from=build /src/catalogs /catalogs
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
# `scopegate health` asks where this says. [::] is IPv4, too, and IPv4 alone on a host without IPv6.
ENV SCOPEGATE_LISTEN=[::]:50051 SCOPEGATE_DATA_DIR=/data SCOPEGATE_LOG_FORMAT=json
VOLUME ["/data"]
EXPOSE 50051
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/scopegate", "health"]
ENTRYPOINT ["/scopegate"]
CMD ["serve"]
