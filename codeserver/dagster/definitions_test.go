package dagster

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// What a code server of dagster 1.13.27 answers, shortened.
const (
	repositories = `{"__class__": "ListRepositoriesResponse", "container_context": {}, "repository_symbols": [
		{"__class__": "LoadableRepositorySymbol", "attribute": "defs", "repository_name": "one"},
		{"__class__": "LoadableRepositorySymbol", "attribute": "more", "repository_name": "two"}]}`
	repository = `{"__class__": "ExternalRepositoryData", "name": "x", "external_job_refs": []}`
	loadError  = `{"__class__": "SerializableErrorInfo", "cls_name": "DagsterUserCodeLoadError", "message": "wrapped\n", "stack": ["frame of Dagster\n"],
		"cause": {"__class__": "SerializableErrorInfo", "cls_name": "KeyError", "message": "KeyError: 'x'\n", "stack": ["line of the user\n"], "cause": null}}`
)

func TestWarm(t *testing.T) {
	for _, test := range []struct {
		name          string
		list, answer  string
		want, without string
	}{
		{"loads", repositories, repository, "", ""},
		{"import fails", loadError, repository, "its definitions do not load:\nline of the user\nKeyError: 'x'", "wrapped"},
		{"repository fails", repositories, `{"__class__": "ExternalRepositoryErrorData", "error": ` + loadError + `}`, "repository one:\nline of the user\nKeyError: 'x'", "wrapped"},
		{"no JSON", repositories, "", "read the answer to ExternalRepository", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &codeServer{answers: map[string]string{"ListRepositories": test.list, "ExternalRepository": test.answer}}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			err := Warm(ctx, s.start(t), "127.0.0.1:4000", "shop")
			if test.want != "" {
				require.ErrorContains(t, err, test.want)
				if test.without != "" {
					require.ErrorIs(t, err, ErrDefinitions)
					require.NotContains(t, err.Error(), test.without)
				}
				return
			}
			require.NoError(t, err)
			var want []string
			for _, name := range []string{"one", "two"} {
				origin := `{"__class__":"ExternalRepositoryOrigin","repository_location_origin":{"__class__":"GrpcServerRepositoryLocationOrigin",` +
					`"host":"127.0.0.1","location_name":"shop","port":4000,"socket":null},"repository_name":"` + name + `"}`
				want = append(want, "ExternalRepository "+string(protowire.AppendVarint(append(text(origin), 2<<3), 1)))
			}
			require.Equal(t, append([]string{"ListRepositories "}, want...), s.calls())
		})
	}
	require.ErrorContains(t, Warm(t.Context(), (&codeServer{}).start(t), "127.0.0.1:4000", "shop"), `gRPC status "12": ListRepositories`)
}
