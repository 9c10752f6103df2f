package lock

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	version "github.com/aquasecurity/go-pep440-version"
	"github.com/stretchr/testify/require"
)

// TestAdmittedBy compares with a search through all patch versions.
func TestAdmittedBy(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	one := func() string {
		n := r.IntN(6)
		if r.IntN(3) == 0 {
			n = r.IntN(102)
		}
		op := []string{"==", "!=", "<", "<=", ">", ">=", "~="}[r.IntN(7)]
		form := []string{"3.11", "3.11.%d", "3.%d", "3.11.%d.1", "3.11.%drc1", "3.%d.0"}[r.IntN(6)]
		if op == "==" || op == "!=" {
			form = []string{"3.11", "3.11.*", "3.11.%d", "3.%d.*"}[r.IntN(4)]
		}
		if strings.Contains(form, "%") {
			form = fmt.Sprintf(form, n)
		}
		return op + form
	}
	admitted := 0
	for range 3000 {
		specifiers := one()
		for range r.IntN(4) {
			specifiers += "," + one()
		}
		s, err := version.NewSpecifiers(specifiers, version.WithPreRelease(true))
		require.NoError(t, err, specifiers)
		want := false
		for patch := 0; patch <= lastPatch && !want; patch++ {
			want = s.Check(version.MustParse(fmt.Sprintf("3.11.%d", patch)))
		}
		got, err := Target{Python: "3.11"}.admittedBy(specifiers)
		require.NoError(t, err, specifiers)
		require.Equal(t, want, got, specifiers)
		if got {
			admitted++
		}
	}
	require.Greater(t, admitted, 300)
	require.Less(t, admitted, 2700)
}
