# ctest: labels=program timeout=120
"""lamina benchmark exchange: a row for all that it promises, with figures that fit together. Which are good is for
people to say: a busy machine decides no test."""
import json
import os
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from program import lamina, sentences

STATISTICS = [64, 128, 256, 512, 1024, 2048]
STATES = [2**k * 1024 for k in range(1, 7)]
CALLS = {"all_reduce": "MPI_Allreduce", "statistics": "MPI_Allreduce", "all_gather": "MPI_Allgather",
         "reduce_scatter": "MPI_Reduce_scatter_block", "all_to_all": "MPI_Alltoall", "broadcast": "MPI_Bcast",
         "barrier": "MPI_Barrier"}


class BenchmarkExchange(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def measure(self, ranks, *arguments):
        figures = self.folder / "figures.json"
        done = lamina("benchmark", "exchange", "--samples", 3, "--calls", 5, "--json", figures, *arguments, ranks=ranks)
        self.assertEqual((done.returncode, sentences(done)), (0, []))
        return done.stdout.decode(), json.loads(figures.read_text())

    def sizes(self, found, name):
        return [exchange["bytes"] for exchange in found["exchanges"] if exchange["name"] == name]

    def assert_ordered(self, times):
        self.assertEqual(set(times), {"minimum", "median", "percentile_90"})
        self.assertTrue(0 < times["minimum"] <= times["median"] <= times["percentile_90"], times)

    def assert_fits(self, base, exchange):
        """A figure that ours is compared with."""
        self.assert_ordered(base["microseconds"])
        ratio = exchange["microseconds"]["median"] / base["microseconds"]["median"]
        self.assertAlmostEqual(base["ratio"] / ratio, 1)

    def test_sizes(self):
        table, found = self.measure(2)

        self.assertEqual((found["ranks"], found["samples"], found["cores"]), (2, 3, os.cpu_count()))
        self.assertEqual({exchange["name"] for exchange in found["exchanges"]}, CALLS.keys())
        for name in ("all_reduce", "statistics"):
            self.assertEqual(self.sizes(found, name), STATISTICS)
        for name in ("reduce_scatter", "all_to_all"):
            self.assertEqual(self.sizes(found, name), STATES)
        self.assertEqual(self.sizes(found, "all_gather"), STATISTICS + STATES[1:])
        self.assertEqual(self.sizes(found, "barrier"), [0])
        rows = table.splitlines()[-len(found["exchanges"]):]
        for row, exchange in zip(rows, found["exchanges"]):
            self.assertEqual(row.split()[:2], [exchange["name"], str(exchange["bytes"])])
            self.assertEqual(row.split()[-1], exchange["reference"]["call"])

    def test_figures_of_processes(self):
        for ranks in (2, 4):
            with self.subTest(ranks=ranks):
                table, found = self.measure(ranks)

                self.assertEqual(found["transport"], "mpi+shared-memory")
                self.assertIn(found["reference"], table)
                for exchange in found["exchanges"]:
                    self.assert_ordered(exchange["microseconds"])
                    self.assertEqual(exchange["reference"]["call"], CALLS[exchange["name"]])
                    self.assert_fits(exchange["reference"], exchange)
                    self.assertTrue(1 <= exchange["calls"] <= 5)
                    if exchange["name"] == "barrier":
                        self.assertIsNone(exchange["copy"])
                    else:
                        self.assert_fits(exchange["copy"], exchange)
                        shares = 1 if exchange["name"] == "broadcast" else ranks
                        self.assertEqual(exchange["copy"]["bytes"], shares * exchange["bytes"])

    def test_one_rank_has_nothing_to_compare_with(self):
        table, found = self.measure(1)

        self.assertIn("no MPI to compare with", table)
        self.assertEqual((found["ranks"], found["transport"], found["reference"]), (1, "self", None))
        for exchange in found["exchanges"]:
            self.assertIsNone(exchange["reference"])
            self.assert_ordered(exchange["microseconds"])

    def test_what_cannot_be_measured(self):
        for arguments, words in ((("--samples", 0), "--samples"), (("--calls", 0), "--calls"),
                                 (("--json", self.folder), "cannot be written")):
            with self.subTest(arguments=arguments):
                done = lamina("benchmark", "exchange", *arguments)
                self.assertEqual((done.returncode, done.stdout), (2, b""))
                self.assertIn(words, sentences(done)[0])


if __name__ == "__main__":
    unittest.main()
