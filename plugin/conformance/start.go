package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/pexpress/pexpress/plugin"
)

// maxSocket is how long a unix socket's path may be, and maxLine a handshake.
const (
	maxSocket = 107
	maxLine   = 4095
)

func checkByHand(_ context.Context, s *suite) error {
	p, err := s.startRaw()
	if err != nil {
		return err
	}
	defer p.close()
	if !p.endsBy(endTime) {
		return errors.New("started without PEXPRESS_PLUGIN it goes on: it has to say what it is and exit")
	}
	line, err := p.line(endTime)
	if err != nil {
		return err
	}
	if strings.Count(line, "|") >= 4 {
		return errors.New("started without PEXPRESS_PLUGIN it says the handshake")
	}
	if line == "" && p.words.String() == "" {
		return errors.New("started without PEXPRESS_PLUGIN it ends without a word: it has to say what it is")
	}
	return nil
}

func checkHandshake(_ context.Context, s *suite) error {
	p, err := s.startRaw(host("1")...)
	if err != nil {
		return err
	}
	defer p.close()
	line, err := p.line(s.opts.Timeout)
	if err != nil {
		return err
	}
	fields := strings.Split(line, "|")
	switch {
	case line == "":
		return fmt.Errorf("it ends without a handshake%s", p.said())
	case len(line) > maxLine:
		return fmt.Errorf("its first line has more than %d bytes", maxLine)
	case len(fields) < 5:
		return fmt.Errorf("its first line is %.200q, not 1|1|unix|SOCKET|grpc", line)
	case fields[0] != "1":
		return fmt.Errorf("the first field is go-plugin's core version, 1, and not %.20q", fields[0])
	case fields[1] != fmt.Sprint(plugin.ProtocolVersion):
		return fmt.Errorf("it answers a host that speaks version %d with version %.20q", plugin.ProtocolVersion, fields[1])
	case fields[2] != "unix":
		return fmt.Errorf("it listens on %.20q: the host takes a unix socket only", fields[2])
	case fields[4] != "grpc":
		return fmt.Errorf("the transport is grpc, not %.20q", fields[4])
	case filepath.Dir(fields[3]) != p.dir:
		return fmt.Errorf("its socket %.200q is not in $PLUGIN_UNIX_SOCKET_DIR", fields[3])
	case len(fields[3]) > maxSocket:
		return fmt.Errorf("its socket's path has more than %d bytes", maxSocket)
	}
	if st, err := os.Lstat(fields[3]); err != nil || st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("it says that it listens on %.200q before there is a socket", fields[3])
	}
	return nil
}

// checkVersions offers what does not exist yet: a host of a later release.
func checkVersions(_ context.Context, s *suite) error {
	for _, offer := range []struct {
		versions string
		common   bool
	}{{"1,2", true}, {"2,3", false}} {
		line, said, err := s.answerTo(offer.versions)
		if err != nil {
			return err
		}
		fields := strings.Split(line, "|")
		switch {
		case offer.common && (len(fields) < 5 || fields[1] != "1"):
			return fmt.Errorf("offered the versions %s it answers %.200q: it has to take 1, which it speaks%s", offer.versions, line, said)
		case !offer.common && len(fields) >= 5 && fields[1] != "1":
			return fmt.Errorf("offered the versions %s it claims to speak %.20q, for which there are no rules yet", offer.versions, fields[1])
		case !offer.common && line == "" && said == "":
			return fmt.Errorf("offered the versions %s it ends without a word: it has to say which it speaks", offer.versions)
		}
	}
	return nil
}

func (s *suite) answerTo(versions string) (line, said string, err error) {
	p, err := s.startRaw(host(versions)...)
	if err != nil {
		return "", "", err
	}
	defer p.close()
	line, err = p.line(s.opts.Timeout)
	if line == "" {
		p.endsBy(endTime) // what it says may come after its output's end
	}
	return line, p.said(), err
}

func checkLifeline(_ context.Context, s *suite) error {
	p, err := s.connect()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.lifeline.Close(); err != nil {
		return err
	}
	if !p.endsBy(endTime) {
		return fmt.Errorf("file descriptor 3 came to its end, and it goes on %s later: read from it, and exit at end of file", endTime)
	}
	return nil
}

func checkHealth(ctx context.Context, s *suite) error {
	p, err := s.connect()
	if err != nil {
		return err
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	resp, err := healthpb.NewHealthClient(p.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "plugin"})
	if err != nil {
		return fmt.Errorf("grpc.health.v1.Health does not answer for the service \"plugin\": %w", err)
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("grpc.health.v1.Health answers %s for the service \"plugin\"", resp.GetStatus())
	}
	return nil
}

// options are those of a build.
func (s *suite) options(isolate bool, env ...string) plugin.Options {
	return plugin.Options{
		Command: s.opts.Command, ReadOnly: s.opts.ReadOnly, Sandbox: isolate, Env: env,
		StartTimeout: s.opts.Timeout, BuildTimeout: s.opts.Timeout,
		Report: func(why string) { s.plain = why },
	}
}

func checkStart(ctx context.Context, s *suite) (err error) {
	s.process, err = plugin.Start(ctx, s.options(true))
	return err
}

func checkDescribe(ctx context.Context, s *suite) error {
	about, err := s.process.Describe(ctx)
	if err != nil {
		return err
	}
	again, err := s.process.Describe(ctx)
	if err != nil {
		return err
	}
	other, err := plugin.Start(ctx, s.options(false, jitter(s.dir)...))
	if err != nil {
		return err
	}
	defer other.Close()
	elsewhere, err := other.Describe(ctx)
	if err != nil {
		return err
	}
	for _, d := range []plugin.Description{again, elsewhere} {
		if d.Name != about.Name || d.OutputVersion != about.OutputVersion || !slices.Equal(d.Kinds, about.Kinds) {
			return fmt.Errorf("it describes itself as %q, and then as %q", about, d)
		}
	}
	if len(about.Kinds) == 0 {
		return errors.New("it names no kind that it makes")
	}
	if name, ok := strings.CutPrefix(filepath.Base(s.opts.Command[0]), "pexpress-plugin-"); ok && name != about.Name {
		return fmt.Errorf("its program is called %s and it calls itself %s", name, about.Name)
	}
	if s.opts.Kind != "" && !slices.Contains(about.Kinds, s.opts.Kind) {
		return fmt.Errorf("it makes %q, and not %q", about.Kinds, s.opts.Kind)
	}
	s.about = about
	return nil
}
