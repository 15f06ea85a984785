//! Nanoseconds per burst of 32 frames through the pipeline alone, without a device.

use bench::stages::{BURST, scenarios};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(BURST as u64));
    for scenario in scenarios() {
        let name = &scenario.name;
        let mut run = scenario.start();
        group.bench_function(format!("{name}/baseline"), |bencher| {
            bencher.iter(|| run.baseline());
        });
        group.bench_function(name, |bencher| bencher.iter(|| run.burst()));
    }
    group.finish();
}

criterion_group!(benches, pipeline);
criterion_main!(benches);
