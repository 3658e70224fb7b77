"""The format `go`: the GOPROXY protocol (go.dev/ref/mod, "GOPROXY protocol")."""
