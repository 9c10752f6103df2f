package codeserver

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// unstartable is an app that writes more than an error quotes, and does not start.
func unstartable(word string) map[string]string {
	return map[string]string{"app.py": fmt.Sprintf("for i in range(200): print(%q, i)\nraise RuntimeError('no good')\n", word)}
}

// failDeploy has a deploy to a location fail, and returns the prefix of the version that its error names to find the log by.
func (h *host) failDeploy(location, word string) string {
	h.t.Helper()
	message := h.refused(codes.FailedPrecondition, &codeserverpb.DeployRequest{Location: location, Spec: h.spec(unstartable(word))})
	require.Regexp(h.t, "`pexpress logs "+location+" --version [0-9a-f]{12}` shows all", message)
	require.NotContains(h.t, message, word+" 0\n")
	var version string
	for _, v := range h.s.unservedOf(location)[:1] {
		version = v.name[:12]
	}
	require.Contains(h.t, message, "--version "+version)
	require.NoError(h.t, h.s.retain())
	return version
}

// firstLogLine returns the first line of a version's log.
func (h *host) firstLogLine(location, version string) (string, error) {
	stream, err := h.Client.Logs(h.t.Context(), &codeserverpb.LogsRequest{Location: location, Version: version})
	require.NoError(h.t, err)
	line, err := stream.Recv()
	return line.GetText(), err
}

// TestLogOfFailedDeploy reads the log of versions that never served, of which nothing else is kept.
func TestLogOfFailedDeploy(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	logs := func(location, version, first string) {
		t.Helper()
		line, err := h.firstLogLine(location, version)
		require.NoError(t, err)
		require.Equal(t, first, line)
	}
	none := func(location, version, says string) {
		t.Helper()
		_, err := h.firstLogLine(location, version)
		require.Equal(t, codes.NotFound, status.Code(err), "%v", err)
		require.ErrorContains(t, err, says)
	}

	first := h.failDeploy("web", "first")
	require.Empty(t, h.s.messages(""), "the location is gone again")
	logs("web", first, "first 0")
	none("web", "", "serves no version; `pexpress logs web --version "+first+"` shows")

	h.deploy(h.spec(webApp("one")))
	logs("web", "", "serving one")
	logs("web", first, "first 0")
	second, third := h.failDeploy("web", "second"), h.failDeploy("web", "third")
	logs("web", second, "second 0")
	logs("web", third, "third 0")
	none("web", first, "has no version")
	require.Equal(t, third, h.failDeploy("web", "third"), "one that fails again is there once")
	logs("web", second, "second 0")
	require.Len(t, h.s.messages("web")[0].GetVersions(), 1)
	files, err := filepath.Glob(filepath.Join(h.opts.State, "logs", "*.log"))
	require.NoError(t, err)
	require.Len(t, files, 3, "those that are forgotten are deleted")

	_, err = h.Client.Remove(t.Context(), &codeserverpb.RemoveRequest{Location: "web"})
	require.NoError(t, err)
	none("web", third, "no location")
}

// TestUnserved: of locations that serve nothing only the last versions that came to nothing are remembered.
func TestUnserved(t *testing.T) {
	serves := &location{name: "web", current: &version{name: "now"}, versions: []*version{{name: "now"}}}
	s := &Server{locations: map[string]*location{"web": serves}}
	add := func(location *location, name string) {
		s.remember(location, &version{name: name, location: location, log: &logbook{size: 1}})
	}
	add(&location{name: "web"}, "a") // as the location's first deploy, and another location of that name serves by now
	add(serves, "now")
	s.remember(serves, &version{name: "silent", location: serves, log: &logbook{}})
	s.remember(serves, &version{name: "unstarted", location: serves})
	require.Len(t, s.unserved, 1)
	for i := range 2 * maxUnserved {
		add(&location{name: fmt.Sprint("new", i)}, "b")
	}
	require.Len(t, s.unserved, 1+maxUnserved)
	require.Len(t, s.unservedOf("web"), 1)
	require.Len(t, s.unservedOf(fmt.Sprint("new", 2*maxUnserved-1)), 1)
	require.Empty(t, s.unservedOf("new0"))
}
