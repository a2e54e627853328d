"""From runs, bundles and records to one page: collect, tabulate, judge, draw. No measuring here."""
