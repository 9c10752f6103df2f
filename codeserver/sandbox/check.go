package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Check reports why there can be no sandboxes here.
func Check() error {
	if os.Geteuid() != 0 {
		return errors.New("the codeserver does not run as root")
	}
	sh, err := exec.LookPath("true")
	if err != nil {
		return err
	}
	cmd := exec.Command(sh)
	cmd.Dir = "/"
	const someone = 65533 // owns nothing, and is no user's for longer than this takes
	started, err := Wrap(cmd, Plan(someone, View{}), nil, 0)
	if err != nil {
		return err
	}
	defer started()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("this host does not let it shut versions in: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
