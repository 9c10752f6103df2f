package codeserver

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/pexpress/pexpress/codeserver/loader"
	codeserverpb "github.com/pexpress/pexpress/codeserver/proto/v1"
	"github.com/pexpress/pexpress/codeserver/venv"
	"github.com/pexpress/pexpress/codeserver/worker"
)

// repair looks at each file of the dependencies of a version that did not come up, which cause is the reason of, and makes
// again those that are not as they were made. It reports whether there were any, also if another version's repair has found
// them since there were as many as repairs; an error is why the version still does not come up.
func (s *Server) repair(ctx context.Context, v *version, p *prepared, log *logbook, r report, repairs int64, cause error) (bool, error) {
	begin := time.Now()
	damaged, err := s.repairFiles(func() ([]string, error) {
		return s.venvs.Repair(ctx, v.deps, p.wheels, p.interpreter, s.loader.CAS())
	})
	again := s.venvs.Repairs() > repairs
	note := "the files of its dependencies are as they were made"
	if again {
		note = "files of dependencies were not as they were made"
	}
	r(&codeserverpb.Stage{Name: "repair", Took: durationpb.New(time.Since(begin)), Note: note})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return false, fmt.Errorf("%w\n%w", err, cause)
	case !again:
		return false, cause
	}
	why, _, _ := strings.Cut(cause.Error(), "\n") // the rest is in this log
	what := strings.Join(damaged, ", ")
	if what == "" {
		what = "another version has found that"
	}
	log.write([]byte(worker.OwnLine + why + "; files of dependencies were not as they were made, are made again, and it is started once more: " + what))
	s.fillBytecode(p.wheels, p.interpreter)
	return true, cause
}

// repairFiles calls f, which returns what it found to be damaged, and has nothing that runs on go on with that.
func (s *Server) repairFiles(f func() ([]string, error)) (damaged []string, err error) {
	err = loader.Heal(func() error {
		found, err := f()
		damaged = append(damaged, found...)
		return err
	})
	if len(damaged) > 0 {
		s.opts.Log.Warn("files of dependencies were not as they were made", "files", damaged, "error", err)
		s.zygotes.Repaired()
	}
	return damaged, err
}

// repairWheels makes sure that wheels are what was deployed, before bytecode is made of them: other hosts use it, too.
func (s *Server) repairWheels(wheels []venv.Wheel, py *venv.Interpreter) error {
	_, err := s.repairFiles(func() ([]string, error) { return s.venvs.RepairWheels(s.ctx, wheels, py, s.loader.CAS()) })
	return err
}
