package codeserver

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pexpress/pexpress/codeserver/bytecode"
	"github.com/pexpress/pexpress/codeserver/venv"
)

// openBytecode sees to it that environments get bytecode that another host has made.
func (s *Server) openBytecode() {
	s.fills = make(chan struct{}, 1)
	if s.opts.BytecodeKey != nil && s.opts.OpenResults != nil {
		s.fleet = bytecode.NewShare(s.opts.BytecodeKey, s.opts.OpenResults, s.opts.Log)
		s.venvs.Fetch = s.fleet.Fetch
	}
}

// uploadTimeout is how long the bytecode of one wheel may be on its way to the cache.
const uploadTimeout = 2 * time.Minute

// fillBytecode makes, in the background, the bytecode that an environment lacks. The environment's first version has started
// without it by then; what it lacks is made at half the processors, when nobody else wants them.
func (s *Server) fillBytecode(wheels []venv.Wheel, py *venv.Interpreter) {
	s.tasks.Go(func() { // also the question whether any is lacking, which is one for each wheel
		if len(s.venvs.NoBytecode(wheels, py)) == 0 {
			return
		}
		select {
		case s.fills <- struct{}{}:
			defer func() { <-s.fills }()
		case <-s.ctx.Done():
			return
		}
		begin := time.Now()
		var modules, skipped atomic.Int64
		lacking := s.venvs.NoBytecode(wheels, py)
		if len(lacking) == 0 {
			return // whoever was before has made it
		}
		compile := func(ctx context.Context, w venv.Wheel, site, out string, names []string) ([]string, error) {
			skip, err := bytecode.Compile(ctx, py, site, out, names)
			if err == nil && s.fleet != nil {
				uploading, cancel := context.WithTimeout(ctx, uploadTimeout)
				defer cancel()
				s.fleet.Upload(uploading, py, w, out)
			}
			modules.Add(int64(len(names)))
			skipped.Add(int64(len(skip)))
			return skip, err
		}
		remade, err := s.venvs.RepairWheels(s.ctx, lacking, py, s.loader.CAS(), begin)
		s.repaired(s.ctx, remade, err)
		err = s.venvs.Fill(s.ctx, lacking, py, max(1, runtime.NumCPU()/2), compile)
		switch {
		case s.ctx.Err() != nil:
		case err != nil:
			s.opts.Log.Warn("bytecode is not made: versions make it when they start", "error", err)
		default:
			s.opts.Log.Info("bytecode was made", "wheels", len(lacking), "modules", modules.Load(), "skipped", skipped.Load(), "took", time.Since(begin))
		}
	})
}
