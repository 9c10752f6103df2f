# Commands of the project. `make demo` and `make test` need nothing installed but Go, Python 3.11 and git.

GO      ?= go
PYTHON  ?= python3.11
CACHE   := .cache
export GOFLAGS := -buildvcs=false

.PHONY: proto
proto: ## regenerate the gRPC code after a change to a .proto file
	rm -rf $(CACHE)/proto && mkdir -p $(CACHE)/proto/include/google/longrunning
	$(PYTHON) -m venv $(CACHE)/proto/venv
	$(CACHE)/proto/venv/bin/pip install -q grpcio-tools==1.76.0 googleapis-common-protos==1.72.0
	GOBIN=$(CURDIR)/$(CACHE)/proto/bin $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(CURDIR)/$(CACHE)/proto/bin $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
	site=$$(echo $(CACHE)/proto/venv/lib/python*/site-packages); \
	cp $$site/google/longrunning/operations_proto.proto $(CACHE)/proto/include/google/longrunning/operations.proto; \
	for p in plugin/proto/v1/builder.proto codeserver/proto/v1/codeserver.proto; do \
	  PATH=$(CURDIR)/$(CACHE)/proto/bin:$$PATH $(CACHE)/proto/venv/bin/python -m grpc_tools.protoc \
	    -I. -I$(CACHE)/proto/include -I$$site -I$$site/grpc_tools/_proto -I$$($(GO) list -m -f '{{.Dir}}' github.com/bazelbuild/remote-apis) \
	    --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative $$p || exit 1; \
	done
