package examples

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPantsDeploy deploys the example's services with Pants to a codeserver, and asks them: once with trees that Pants
// hands over, once by digest alone, from the cache that Pants has written.
func TestPantsDeploy(t *testing.T) {
	r := newPantsRepo(t)

	t.Run("upload", func(t *testing.T) {
		server := newHost(t, nil)
		require.NoError(t, os.Mkdir(server.project, 0o755))
		server.start()
		r.host("PANTS_PEXPRESS_CACHE="+server.cache(), "PANTS_PEXPRESS_CODESERVER="+server.socket()).
			run("experimental-deploy", "services::")
		at := locations(server)
		require.Equal(t, "Hello from greet", server.get(at["greet"], "/"))
		require.Contains(t, server.get(at["tally"], "/"), "Hello, visitor ")
		require.Contains(t, server.get(at["clock"], "/"), "Hello, it is ")
	})
	t.Run("digest", func(t *testing.T) {
		p := servePexcache(t)
		server := newHost(t, nil)
		server.remote = "grpc://" + p.grpc
		require.NoError(t, os.Mkdir(server.project, 0o755))
		server.start()
		builder := r.host(remoteCache(p)...)
		builder.run("package", "services/tally:deploy")
		deps, source := builder.roots("services.tally/deploy")
		written, batches, results := p.called("ByteStream/Write"), p.called("BatchUpdateBlobs"), p.called("UpdateActionResult")
		require.NotZero(t, written+batches)

		// Another host deploys, which has nothing: it neither builds nor uploads a file.
		deployer := r.host(append(remoteCache(p), "PANTS_PEXPRESS_UPLOAD=false", "PANTS_PEXPRESS_CACHE="+server.remote,
			"PANTS_PEXPRESS_CODESERVER="+server.socket())...)
		counts := deployer.run("experimental-deploy", "services/tally:deploy")
		require.Zero(t, counts["local_execution_requests"])
		require.Contains(t, server.get(locations(server)["tally"], "/"), "Hello, visitor ")
		said := server.run("status").stdout
		require.Contains(t, said, "deps "+deps.Short())
		require.Contains(t, said, "source "+source.Short())
		require.Equal(t, written, p.called("ByteStream/Write"), "uploads before and after the deploy")
		// The codeserver shares what the version imports: a batch of small blobs, and a result that names them. The deployer has
		// run nothing that there could be a result of.
		require.Eventually(t, func() bool {
			return p.called("BatchUpdateBlobs")-batches <= p.called("UpdateActionResult")-results
		}, 10*time.Second, 100*time.Millisecond, "uploads before and after the deploy")
	})
}

var servedAt = regexp.MustCompile(`(?m)^(\S+) at (\S+)$`)

// locations are the addresses of what a codeserver serves.
func locations(h *host) map[string]string {
	at := map[string]string{}
	for _, m := range servedAt.FindAllStringSubmatch(h.run("status").stdout, -1) {
		at[m[1]] = m[2]
	}
	return at
}
