# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Results so far
#
# All numbers of this project on this page were measured by it, and come from `results/`. The
# paper's stand in tables of their own and are marked as the paper's.

# %% tags=["remove-input"]
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

from mgca.results import read_results, read_run, summary

here = Path.cwd()
project = here if (here / "results").is_dir() else here.parent
results = project / "results"
sns.set_theme(style="whitegrid", palette="colorblind")
main = read_results(results / "photos" / "main.csv")
order = ["voc20", "coco80", "camvid"]
titles = {"voc20": "VOC20", "coco80": "COCO, 80 things", "camvid": "CamVid"}

# %% [markdown]
# ## Photos
#
# `lite` on parts of three public sets (VOC 2012: 364 images, COCO 2017: 240, CamVid: 123), trained
# on the captions of 7,291 Flickr8k photographs. mIoU in percent over the classes that occur in the
# part, mean ± standard deviation over three seeds (alignment and decoder both trained anew). Being
# parts, the sets give numbers that **cannot be compared with published ones**.

# %% tags=["remove-input"]
means = summary(main)
means["shown"] = means["mean"].map("{:.1f}".format) + " ± " + means["std"].map("{:.1f}".format)
table = means.pivot(index=["variant", "unit"], columns="dataset", values="shown")[order]
each = main[main["metric"] == "miou"].groupby(["variant", "unit", "seed"])["value"].mean()
mean = each.groupby(["variant", "unit"]).agg(["mean", "std"])
table["mean of the three"] = [
    f"{mean.loc[index, 'mean']:.1f} ± {mean.loc[index, 'std']:.1f}" for index in table.index
]
table.rename(index={"pixel": "pixel", "36": "36 meta-points"}, columns=titles)

# %% tags=["remove-input"]
shown = main[main["metric"] == "miou"].assign(
    method=main["variant"] + ", " + main["unit"].replace({"pixel": "pixel", "36": "36 units"}),
    set=main["dataset"].map(titles),
)
figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
sns.barplot(
    shown,
    x="set",
    y="value",
    hue="method",
    order=[titles[name] for name in order],
    hue_order=["alignment, pixel", "alignment, 36 units", "mgca, pixel", "mgca, 36 units"],
    errorbar="sd",
    ax=axis,
)
axis.set(xlabel="", ylabel="mIoU (%)")
axis.legend(title="", frameon=False, fontsize=9)
plt.show()

# %% [markdown]
# ## Paper scale
#
# CLIP ViT-B/16 trained on CC3M and evaluated on eight benchmarks needs weights, data and GPUs that
# were not at hand. **Not run.** The paper's figures, for reference:

# %% tags=["remove-input"]
for number, caption in ((1, "with a background class"), (2, "without a background class")):
    paper = pd.read_csv(results / "paper" / f"table{number}.csv")
    paper.insert(2, "MGCA here", ["not run" if row == "MGCA" else "" for row in paper["method"]])
    display(Markdown(f"**Table {number} of the paper**, {caption}: mIoU in percent, their numbers"))
    display(paper.set_index("method").rename(columns={"pretrain_data": "trained on"}).fillna("–"))

# %% [markdown]
# ## Where each number comes from

# %% tags=["remove-input"]
records = []
for (variant, seed), rows in main.groupby(["variant", "seed"]):
    run = rows["run"].iloc[0]
    record = read_run(results / "photos", run)
    records.append(
        {
            "variant": variant,
            "seed": seed,
            "run": run,
            "commit": record["commit"][:12],
            "torch": record["environment"]["torch"],
            "device": record["device"],
            "minutes": round(record["seconds"] / 60, 1),
            "date": record["date"][:10],
        }
    )
pd.DataFrame(records).set_index(["variant", "seed"])

# %% [markdown]
# `results/photos/main.csv` holds the table, `results/photos/runs/<run>.json` the configuration,
# environment and data of each run.
