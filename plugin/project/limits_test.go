package project

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLimitsAndSecretEnv(t *testing.T) {
	p := load(t, checkout(t, `
-- pexpress.toml --
[location.web]
preset = "module"
module = "web"
warm = false
secret-env = ["TOKEN", "DB_PASSWORD", "TOKEN"]
[location.web.limits]
memory = "1.5GiB"
cpu = 1.5
pids = 200
open-files = 1024
tmp = "64MiB"
[location.other]
preset = "module"
module = "other"
warm = true
limits = { cpu = 2, memory = "512 MiB" }
[location.plain]
preset = "module"
module = "plain"
`))
	web, err := p.Location("web")
	require.NoError(t, err)
	require.Equal(t, Limits{Memory: 1536 << 20, CPUMillis: 1500, Pids: 200, OpenFiles: 1024, Tmp: 64 << 20}, web.Limits)
	require.Equal(t, []string{"DB_PASSWORD", "TOKEN"}, web.SecretEnv)
	require.True(t, web.Cold)
	other, err := p.Location("other")
	require.NoError(t, err)
	require.Equal(t, Limits{Memory: 512 << 20, CPUMillis: 2000}, other.Limits)
	require.False(t, other.Cold)
	plain, err := p.Location("plain")
	require.NoError(t, err)
	require.Zero(t, plain.Limits)
	require.False(t, plain.Cold)
	require.Empty(t, plain.SecretEnv)
}

func TestLimitsAndSecretEnvRefused(t *testing.T) {
	for line, want := range map[string]string{
		`limits = { memory = "lots" }`:                  `limits.memory must be a size such as "512MiB"`,
		`limits = { memory = "" }`:                      `limits.memory must be a size`,
		`limits = { memory = "0MiB" }`:                  `limits.memory must be a size`,
		`limits = { tmp = "0B" }`:                       `limits.tmp must be a size such as "512MiB"`,
		`limits = { memory = 512 }`:                     `limits.memory must be a string`,
		`limits = { cpu = "2" }`:                        `limits.cpu must be a number of processors such as 1.5, it is a string`,
		`limits = { cpu = -1 }`:                         `limits.cpu must be a number of processors`,
		`limits = { cpu = nan }`:                        `limits.cpu must be a number of processors`,
		`limits = { pids = 0 }`:                         `limits.pids must be at least 2, it is 0`,
		`limits = { pids = 1 }`:                         `pexpress.toml:4: location.web.limits.pids must be at least 2, it is 1`,
		`limits = { pids = 4000001 }`:                   `limits.pids must be at most 4000000, it is 4000001`,
		`limits = { open-files = 63 }`:                  `limits.open-files must be at least 64, it is 63`,
		`limits = { memory = "1KiB" }`:                  `limits.memory must be at least 8MiB, it is "1KiB"`,
		`limits = { tmp = "1023KiB" }`:                  `limits.tmp must be at least 1MiB, it is "1023KiB"`,
		`limits = { cpu = 0.009 }`:                      `limits.cpu must be at least 0.01, it is 0.009`,
		`limits = { cpu = 1001 }`:                       `limits.cpu must be at most 1000, it is 1001`,
		`limits = { open-files = 1.5 }`:                 `limits.open-files must be an integer`,
		`limits = { open_files = 1 }`:                   `limits.open_files is not a key here; did you mean open-files?`,
		`secret-env = ["A B"]`:                          `secret-env must hold names of environment variables, "A B" is none`,
		"secret-env = [\"A\"]\nenv = { A = \"plain\" }": `secret-env names A, which is in env, too`,
		`warm = "no"`:                                   `warm must be a boolean`,
	} {
		_, err := Load(checkout(t, "-- pexpress.toml --\n[location.web]\npreset = \"module\"\nmodule = \"web\"\n"+line+"\n"))
		require.ErrorContains(t, err, want, line)
	}
}
