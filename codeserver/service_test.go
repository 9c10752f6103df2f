package codeserver

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
)

// TestLogSaysWhatWasAsked deploys, rolls back and restarts, in vain as well: who reads the log learns which of them it was.
func TestLogSaysWhatWasAsked(t *testing.T) {
	t.Parallel()
	log := new(lockedBuffer)
	h := newHost(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	one := h.deploy(h.spec(webApp("one"))).GetLocation().GetCurrent()
	two := h.deploy(h.spec(webApp("two"))).GetLocation().GetCurrent()
	require.Regexp(t, `level=INFO msg=deployed location=web version=`+two, log.String())
	_, err := h.rollback("")
	require.NoError(t, err)
	require.Regexp(t, `level=INFO msg="rolled back" location=web version=`+one, log.String())
	_, err = h.anew()
	require.NoError(t, err)
	require.Regexp(t, `level=INFO msg=restarted location=web version=`+one, log.String())
	_, err = h.anew(func(r *codeserverpb.RestartRequest) { r.Location = "none" })
	require.Equal(t, codes.NotFound, status.Code(err))
	require.Regexp(t, `level=WARN msg="a restart failed" location=none error=`, log.String())
	_, err = h.rollback("none")
	require.Error(t, err)
	require.Regexp(t, `level=WARN msg="a rollback failed" location=web version=none error=`, log.String())
	require.NotContains(t, log.String(), "a deploy failed")
	h.refused(codes.InvalidArgument, &codeserverpb.DeployRequest{Location: "web"})
	require.Regexp(t, `level=WARN msg="a deploy failed" location=web`, log.String())
}
